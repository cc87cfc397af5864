"""A generation as Ultralytics' YOLO segmentation data: photographs, a text file of polygons each,
`data.yaml`.

    data.yaml                 train, val, names
    images/train/sa_1.jpg     labels/train/sa_1.txt      a line per mask: class x1 y1 x2 y2 ..., 0 to 1
    images/val/...            labels/val/...

How it works: an image goes to `val` by a hash of its key, so that it stays there in every generation. A
mask is one polygon through the centres of its border pixels, shifted by half a pixel: what a reader makes
of it by scaling, cutting to whole numbers and OpenCV's `fillPoly` is the mask again but for the corners
that `TOLERANCE_PX` left out and thin bridges between islands (polygons.py). A mask's class is its label's
where the generation has labels, else "object". Classes of an imported column are those of its file, in order
of their ids, used or not; its crowds are left out, as Ultralytics' own converter does, and counted.

What it does not know: masks inside masks are lines of the same file; YOLO has no word for parents or scores.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.rle import Rle, decode
from maskmill.storage.errors import DamagedObject
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.chosen.selection import Selection, class_of
from maskmill.workers.exports.chosen.splits import TEST, TRAIN, VAL, split_of
from maskmill.workers.exports.chosen.splits import parse as parse_split
from maskmill.workers.exports.given import CROWD, KeptEntries, given_categories, is_crowd
from maskmill.workers.exports.polygons import joined, rings_of
from maskmill.workers.exports.report import ExportedFile, ExportReport, begin, finish, plan_of, refuse_late
from maskmill.workers.exports.samples import ExportImage, count_unannotated, source_options
from maskmill.workers.reading.survey import count_rejects

if TYPE_CHECKING:
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportTask

TOLERANCE_PX = 0.5
SPLIT = parse_split("95/5")
"""Where nothing else is asked for: Ultralytics' trainer needs both."""

OBJECT = "object"
SETTINGS = "data.yaml"


def write(task: ExportTask) -> ExportReport:
    """Writes a generation as YOLO segmentation data; see `WriteExport`."""
    store, generation, choices = task.store, task.generation, task.choices
    if choices.ids_of:
        KeptEntries(store, generation, choices.ids_of)  # says so where there is no such import
    selection = Selection(store, generation, choices)
    options = {**source_options(generation, choices), **selection.options()}
    plan = plan_of("yolo", store, generation, options)
    target = open_store(task.destination)
    started_s = time.monotonic()
    complete = begin(target, plan)
    if complete is not None:
        return complete

    names = choices.classes or given_categories(generation, choices.ids_of or choices.column).values()
    written = _Written(classes={name: number for number, name in enumerate(names)})
    for image in selection.images():
        _write_image(target, image, split_of(image.sample.key, selection.shares or SPLIT), written)
        if task.progress is not None:
            task.progress(written.num_images)

    settings = _settings(target, written)
    target.put(SETTINGS, settings)
    reviewed = selection.reviewed()
    report = ExportReport(
        format="yolo",
        destination=target.root,
        generation=generation.number,
        num_images=written.num_images,
        num_masks=written.num_masks,
        rejects=count_rejects(store, generation),
        files=(
            ExportedFile(
                name=SETTINGS,
                size_bytes=len(settings),
                sha256=hashlib.sha256(settings).hexdigest(),
                num_images=written.num_images,
                num_masks=written.num_masks,
            ),
        ),
        size_bytes=written.size_bytes + len(settings),
        seconds=time.monotonic() - started_s,
        num_reviewed_images=reviewed.images,
        num_reviewed_masks=reviewed.masks,
        num_unannotated=count_unannotated(generation, choices, reviewed),
        num_loose_images=written.num_images,
        left_out=dict(written.left_out + selection.left_out),
    )
    refuse_late(store, generation, target)
    finish(target, plan, report)
    return report


def label_line(class_id: int, segmentation: Mapping[str, Any]) -> str:
    """A mask's line of a labels file; empty for an empty mask. Raises ValueError for damaged run lengths."""
    rle = Rle.from_coco(segmentation)
    polygon = joined(rings_of(decode(rle), tolerance_px=TOLERANCE_PX))
    shares = (polygon + 0.5) / (rle.width, rle.height)
    return " ".join([str(class_id), *(f"{value:.6g}" for value in shares.ravel())]) if len(polygon) else ""


@dataclass
class _Written:
    """What was written so far."""

    num_images: int = 0
    num_masks: int = 0
    size_bytes: int = 0
    splits: set[str] = field(default_factory=set)
    classes: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def _write_image(target: ObjectStore, image: ExportImage, split: str, written: _Written) -> None:
    lines = []
    for annotation in image.record["annotations"]:
        if is_crowd(annotation):
            written.left_out[CROWD] += 1
            continue
        name = class_name(annotation)
        class_id = written.classes.setdefault(name, len(written.classes))
        try:
            lines.append(label_line(class_id, annotation["segmentation"]))
        except ValueError as exc:
            raise DamagedObject(f"masks of {image.sample.key}: {exc}") from exc

    # Picture and labels, side by side
    text = "".join(f"{line}\n" for line in lines if line).encode()
    target.put(f"images/{split}/{image.stem}.jpg", image.jpeg)
    target.put(f"labels/{split}/{image.stem}.txt", text)

    written.splits.add(split)
    written.num_images += 1
    num_masks = sum(bool(line) for line in lines)
    written.num_masks += num_masks
    if num_masks < len(lines):
        written.left_out["empty_mask"] += len(lines) - num_masks
    written.size_bytes += len(image.jpeg) + len(text)


def class_name(annotation: Mapping[str, Any]) -> str:
    """A mask's class: what was chosen for it, else its words, else "object"."""
    return class_of(annotation) or OBJECT


def _settings(target: ObjectStore, written: _Written) -> bytes:
    """data.yaml. JSON strings are YAML's; a split without images falls back on another."""
    first, *_ = sorted(written.splits, key=(TRAIN, VAL, TEST).index) or (VAL,)
    train, val = (name if name in written.splits else first for name in (TRAIN, VAL))
    lines = [
        "# train and val lie beside this file, wherever it is moved",
        f"train: images/{train}",
        f"val: images/{val}",
        *([f"test: images/{TEST}"] if TEST in written.splits else []),
        "names:",
        *(f"  {number}: {json.dumps(name)}" for name, number in (written.classes or {OBJECT: 0}).items()),
    ]
    return ("\n".join(lines) + "\n").encode()
