"""A generation as one COCO JSON, with run-length masks, and the photographs beside it; lvis.py has LVIS's.

How it works: image entries and annotations wait in temporary files on the local disk, which are put together
at the end, categories last; memory stays flat whatever the number of masks. Each split has a file, and all
the same categories. A mask is of the class that was chosen for it, else of its best label, its best name,
"object". LVIS's fields say what is known: no category was looked for in vain, none searched to the end;
`coco_url` is the picture's place in the export, where detectron2 and mmdetection look for it; crowds, which
LVIS has no word for, are left out and counted. Masks are polygons where those are asked for (polygons.py).
`bbox` is pycocotools' `toBbox` (its width and height count pixels: one more than in the SA-1B record),
because COCO's readers clip and compare with that rule. Ids are those of the records, which are never 0:
pycocotools' evaluation takes an annotation of id 0 for "no match".

What it does not know: a JSON beyond some hundred thousand images is valid, but few readers can load it; use
the SA-1B tars then.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pycocotools import mask as coco_mask

from maskmill.pipeline.rle import Rle, decode
from maskmill.storage.shards.shards import HashingWriter
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.categories import Categories
from maskmill.workers.exports.chosen.selection import Selection, class_of
from maskmill.workers.exports.given import CROWD, KeptEntries, given_categories, head_of, is_crowd
from maskmill.workers.exports.polygons import outlines_of
from maskmill.workers.exports.report import ExportedFile, ExportReport, begin, finish, plan_of, refuse_late
from maskmill.workers.exports.samples import ExportImage, count_unannotated, source_options
from maskmill.workers.reading.survey import count_rejects
from maskmill.workers.reading.words import image_fields, mask_fields

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportChoices, ExportTask, Progress

ANNOTATIONS = "annotations.json"
PICTURES = "images"
COPY_BYTES = 1 << 20


def write(task: ExportTask) -> ExportReport:
    """Writes `annotations.json` and, if wanted, `images/sa_<image id>.jpg`; see `WriteExport`."""
    return write_annotations(task)


def write_annotations(task: ExportTask, *, lvis: bool = False) -> ExportReport:
    """`write`, with the fields that LVIS has beyond COCO's if `lvis`.

    Raises:
        ExportError: the destination holds something else.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    store, generation, choices = task.store, task.generation, task.choices
    selection = Selection(store, generation, choices)
    options: dict[str, int | bool | str | float] = {
        "images": choices.images,
        **({"polygons": True} if choices.polygons else {}),
        **source_options(generation, choices),
        **selection.options(),
    }
    plan = plan_of(choices.format, store, generation, options)
    target = open_store(task.destination)
    started_s = time.monotonic()
    kept = KeptEntries(store, generation, choices.ids_of) if choices.ids_of else None
    complete = begin(target, plan)
    if complete is not None:
        return complete

    with ExitStack() as spools:
        job = _Job(generation, target, choices, selection, lvis, kept)
        files, image_bytes = _write_all(job, spools, task.progress)
    num_images = sum(file.num_images for file in files)
    reviewed = selection.reviewed()
    report = ExportReport(
        format=plan.format,
        destination=target.root,
        generation=generation.number,
        num_images=num_images,
        num_masks=sum(file.num_masks for file in files),
        rejects=count_rejects(store, generation),
        files=files,
        size_bytes=sum(file.size_bytes for file in files) + image_bytes,
        seconds=time.monotonic() - started_s,
        num_reviewed_images=reviewed.images,
        num_reviewed_masks=reviewed.masks,
        num_unannotated=count_unannotated(generation, choices, reviewed),
        num_loose_images=num_images if choices.images else 0,
        left_out=dict(selection.left_out + job.left_out),
    )
    refuse_late(store, generation, target)
    finish(target, plan, report)
    return report


@dataclass(frozen=True)
class _Job:
    """An export on its way; `left_out` counts what the format cannot hold."""

    generation: Generation
    target: ObjectStore
    choices: ExportChoices
    selection: Selection
    lvis: bool
    kept: KeptEntries | None
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def is_ours(self) -> bool:
        """Whether pictures and classes go out in our words, not in those that they came in."""
        return bool(self.lvis or self.choices.classes or self.choices.class_map or self.kept)

    def entry_of(self, image: ExportImage) -> dict[str, Any]:
        """A picture's entry; LVIS's has no other name than the file in this export."""
        entry = image_entry(image)
        return self.kept.put_in(entry, image.sample.key, names=not self.lvis) if self.kept else entry


class _Spool:
    """A split's images and annotations on the local disk, until all categories are known."""

    def __init__(self, files: ExitStack) -> None:
        self._images, self._masks = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        for file in (self._images, self._masks):
            files.enter_context(file)
        self.num_images = self.num_masks = 0

    def add(self, image: Mapping[str, Any], masks: Sequence[Mapping[str, Any]]) -> None:
        """An image's entry and its annotations'."""
        self._images.write((b",\n" if self.num_images else b"\n") + _dump(image))
        self.num_images += 1
        for entry in masks:
            self._masks.write((b",\n" if self.num_masks else b"\n") + _dump(entry))
            self.num_masks += 1

    def write(self, target: ObjectStore, name: str, head: Mapping[str, Any], listed: Any) -> ExportedFile:
        """The whole file."""
        with target.open_write(name) as published:
            out = HashingWriter(published)
            out.write(b"{" + b"".join(b"%s: %s,\n" % (_dump(key), _dump(head[key])) for key in head))
            for title, spool in ((b'"images": [', self._images), (b'\n],\n"annotations": [', self._masks)):
                out.write(title)
                spool.seek(0)
                shutil.copyfileobj(spool, cast(BinaryIO, out), COPY_BYTES)
            out.write(b"\n]}\n" if "categories" in head else b'\n],\n"categories": %s}\n' % _dump(listed))
        return ExportedFile(
            name=name,
            size_bytes=out.num_bytes,
            sha256=out.hexdigest(),
            num_images=self.num_images,
            num_masks=self.num_masks,
        )


def _write_all(
    job: _Job, files: ExitStack, progress: Progress | None
) -> tuple[tuple[ExportedFile, ...], int]:
    """The annotations file of each split, and the bytes of the photographs beside them."""
    choices, image_bytes = job.choices, 0
    given = given_categories(job.generation, choices.ids_of or choices.column)
    categories = Categories(given, choices.classes)
    spools = {split: _Spool(files) for split in job.selection.split_names}

    # Images and annotations aside, photographs out
    for number, image in enumerate(job.selection.images(pictures=choices.images), 1):
        if job.is_ours:
            image = dataclasses.replace(image, original=None)
        entry, masks = _entries(image, categories, job)
        spools[image.split].add(entry, masks)
        if choices.images:
            job.target.put(f"{PICTURES}/{entry['file_name']}", image.jpeg)
            image_bytes += len(image.jpeg)
        if progress is not None:
            progress(number)

    # A file a split, all with the same categories
    head = _head(job)
    listed = categories.lvis() if job.lvis else _as_listed(categories, job)
    written = tuple(
        spool.write(job.target, f"annotations_{split}.json" if split else ANNOTATIONS, head, listed)
        for split, spool in spools.items()
    )
    return written, image_bytes


def _entries(
    image: ExportImage, categories: Categories, job: _Job
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An image's entry and its annotations'; LVIS has no crowds."""
    entry = job.entry_of(image)
    entries = list(annotation_entries(image, categories, polygons=job.choices.polygons))
    if job.kept:
        entries = [{**one, "image_id": entry["id"]} for one in entries]
    if not job.lvis:
        return entry, entries
    shown = {**entry, **_lvis_image(image, entries)}
    kept = [entry for entry in entries if not entry["iscrowd"]]
    if len(kept) < len(entries):
        job.left_out[CROWD] += len(entries) - len(kept)
    return shown, kept


def _as_listed(categories: Categories, job: _Job) -> list[dict[str, Any]]:
    """The categories; those that an import's file lists, in its words."""
    listed = head_of(job.generation, job.choices.ids_of).get("categories") if job.kept else None
    words = {one["id"]: one for one in listed or () if isinstance(one, Mapping) and "id" in one}
    if job.choices.classes:
        words = {}
    return [{**one, **words.get(one["id"], {})} for one in categories.coco()]


def _head(job: _Job) -> dict[str, Any]:
    """What the file begins with; of imported COCO annotations, all that came in, categories included."""
    head = {} if job.is_ours else head_of(job.generation, job.choices.column)
    if head:
        return head
    number = job.generation.number
    info = {
        "description": f"maskmill generation {number}",
        "version": str(number),
        "contributor": "maskmill",
    }
    return {"info": info, "licenses": []}


def image_entry(image: ExportImage) -> dict[str, Any]:
    """COCO's image: id, file name, width, height; `source` and `caption` where known."""
    if image.original is not None:
        return dict(image.original)
    info = image.record["image"]
    told = ("source", *image_fields())
    extra = {name: info[name] for name in told if info.get(name) is not None}
    return {
        "id": info["image_id"],
        "file_name": f"{image.stem}.jpg",
        "width": info["width"],
        "height": info["height"],
        **extra,
    }


def _lvis_image(image: ExportImage, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What LVIS says of an image: nothing was looked for in vain, and nothing searched to the end."""
    found = sorted({int(entry["category_id"]) for entry in entries})
    place = f"{PICTURES}/{image_entry(image)['file_name']}"
    return {"coco_url": place, "neg_category_ids": [], "not_exhaustive_category_ids": found}


def annotation_entries(
    image: ExportImage, categories: Categories, *, polygons: bool = False
) -> Iterator[dict[str, Any]]:
    """COCO's annotations of an image: as they came in, where they were imported."""
    if image.original is not None:
        yield from (dict(annotation) for annotation in image.original_annotations)
        return
    rows = image.record["annotations"]
    for category_id, row in zip(categories.count(class_of(row) for row in rows), rows, strict=True):
        entry = annotation_entry(row, image_id=image.record["image"]["image_id"], category_id=category_id)
        if polygons and not entry["iscrowd"]:
            mask_HW = decode(Rle.from_coco(row["segmentation"]))
            entry["segmentation"] = [outline.ravel().tolist() for outline in outlines_of(mask_HW)]
        yield entry


def annotation_entry(annotation: Mapping[str, Any], *, image_id: int, category_id: int) -> dict[str, Any]:
    """COCO's annotation of one SA-1B annotation; scores, `output_token`, `parent` and words ride along.

    Raises:
        ValueError: the run lengths are not COCO's.
    """
    segmentation = annotation["segmentation"]
    box_xywh = coco_mask.toBbox(
        {"size": segmentation["size"], "counts": segmentation["counts"].encode("ascii")}
    )
    return {
        "id": annotation["id"],
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "area": annotation["area"],
        "bbox": [float(value) for value in box_xywh],
        "iscrowd": int(is_crowd(annotation)),
        "predicted_iou": annotation["predicted_iou"],
        "stability_score": annotation["stability_score"],
        "output_token": annotation.get("output_token"),
        "parent": annotation.get("parent"),
        **{name: annotation[name] for name in mask_fields() if name in annotation},
    }


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
