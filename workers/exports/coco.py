"""A generation as one COCO JSON, with run-length masks, and the photographs beside it; lvis.py has LVIS's.

How it works: image entries stream into the file while annotations wait in a temporary file on the local
disk, which is appended at the end, categories last; memory stays flat whatever the number of masks. A mask is
of the category of its best label, else of its best name, else "object". LVIS's fields say what is known: no
category was looked for in vain, none searched to the end; `coco_url` is the picture's place in the export,
where detectron2 and mmdetection look for it; crowds, which LVIS has no word for, are left out and counted.
Masks are polygons where those are asked for (polygons.py). `bbox` is pycocotools' `toBbox` (its width and
height count pixels: one more than in the SA-1B record), because COCO's readers clip and compare with that
rule. Ids are those of the records, which are never 0: pycocotools' evaluation takes an annotation of id 0 for
"no match".

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
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pycocotools import mask as coco_mask

from maskmill.pipeline.rle import Rle, decode
from maskmill.storage.shards.shards import HashingWriter
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.categories import Categories
from maskmill.workers.exports.given import CROWD, given_categories, is_crowd
from maskmill.workers.exports.polygons import outlines_of
from maskmill.workers.exports.report import ExportedFile, ExportReport, begin, finish, plan_of, refuse_late
from maskmill.workers.exports.samples import (
    ExportImage,
    count_reviewed,
    count_unannotated,
    export_images,
    source_options,
)
from maskmill.workers.reading.survey import count_rejects
from maskmill.workers.reading.words import category_of, image_fields, mask_fields

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportChoices, Progress

ANNOTATIONS = "annotations.json"
PICTURES = "images"
COPY_BYTES = 1 << 20


def write(
    store: ObjectStore,
    generation: Generation,
    destination: str,
    choices: ExportChoices,
    progress: Progress | None,
) -> ExportReport:
    """Writes `annotations.json` and, if wanted, `images/sa_<image id>.jpg`.

    Args:
        store: the dataset.
        generation: what of it to export.
        destination: an empty or new folder or s3:// prefix, or one where this export was begun.
        choices: whether the photographs are written, upright, as the masks fit them; and the column that has
            the masks: an imported one is written in the words it came in.
        progress: called with the number of images written so far.

    Returns:
        What was written; an export that is complete already is only reported.

    Raises:
        ExportError: the destination holds something else.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    return write_annotations(store, generation, destination, choices, progress)


def write_annotations(
    store: ObjectStore,
    generation: Generation,
    destination: str,
    choices: ExportChoices,
    progress: Progress | None,
    *,
    lvis: bool = False,
) -> ExportReport:
    """`write`, with the fields that LVIS has beyond COCO's if `lvis`.

    Raises:
        ExportError: the destination holds something else.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    options = {
        "images": choices.images,
        **({"polygons": True} if choices.polygons else {}),
        **source_options(generation, choices),
    }
    plan = plan_of(choices.format, store, generation, options)
    target = open_store(destination)
    started_s = time.monotonic()
    complete = begin(target, plan)
    if complete is not None:
        return complete

    left_out = Counter[str]()
    file, image_bytes = _write_all(store, generation, target, choices, lvis, left_out, progress)
    reviewed = count_reviewed(store, generation, choices)
    report = ExportReport(
        format=plan.format,
        destination=target.root,
        generation=generation.number,
        num_images=file.num_images,
        num_masks=file.num_masks,
        rejects=count_rejects(store, generation),
        files=(file,),
        size_bytes=file.size_bytes + image_bytes,
        seconds=time.monotonic() - started_s,
        num_reviewed_images=reviewed.images,
        num_reviewed_masks=reviewed.masks,
        num_unannotated=count_unannotated(generation, choices, reviewed),
        num_loose_images=file.num_images if choices.images else 0,
        left_out=dict(left_out),
    )
    refuse_late(store, generation, target)
    finish(target, plan, report)
    return report


def _write_all(
    store: ObjectStore,
    generation: Generation,
    target: ObjectStore,
    choices: ExportChoices,
    lvis: bool,
    left_out: Counter[str],
    progress: Progress | None,
) -> tuple[ExportedFile, int]:
    """The annotations file, and the bytes of the photographs beside it."""
    num_images, num_masks, image_bytes = 0, 0, 0
    given = given_categories(generation, choices.column)
    categories, head = Categories(given), _head(generation, "masks" if lvis else choices.column)
    with target.open_write(ANNOTATIONS) as published, tempfile.TemporaryFile() as spool:
        out = HashingWriter(published)
        out.write(b"{" + b"".join(b"%s: %s,\n" % (_dump(name), _dump(value)) for name, value in head.items()))

        # Images into the file, their annotations aside
        out.write(b'"images": [')
        for image in export_images(
            store, generation, pictures=choices.images, column=choices.column, people=choices.people
        ):
            if lvis:
                image = dataclasses.replace(image, original=None)
            entries = list(annotation_entries(image, categories, polygons=choices.polygons))
            shown = {**image_entry(image), **(_lvis_image(image, entries) if lvis else {})}
            if lvis:
                crowds = [entry for entry in entries if entry["iscrowd"]]
                left_out.update([CROWD] * len(crowds))
                entries = [entry for entry in entries if not entry["iscrowd"]]
            out.write((b",\n" if num_images else b"\n") + _dump(shown))
            for entry in entries:
                spool.write((b",\n" if num_masks else b"\n") + _dump(entry))
                num_masks += 1
            if choices.images:
                target.put(f"{PICTURES}/{image_entry(image)['file_name']}", image.jpeg)
                image_bytes += len(image.jpeg)
            num_images += 1
            if progress is not None:
                progress(num_images)

        # Annotations after them, categories last
        out.write(b'\n],\n"annotations": [')
        spool.seek(0)
        shutil.copyfileobj(spool, cast(BinaryIO, out), COPY_BYTES)
        listed = categories.lvis() if lvis else categories.coco()
        out.write(b"\n]}\n" if "categories" in head else b'\n],\n"categories": %s}\n' % _dump(listed))
    file = ExportedFile(
        name=ANNOTATIONS,
        size_bytes=out.num_bytes,
        sha256=out.hexdigest(),
        num_images=num_images,
        num_masks=num_masks,
    )
    return file, image_bytes


def _head(generation: Generation, column: str) -> dict[str, Any]:
    """What the file begins with; of imported COCO annotations, all that came in, categories included."""
    given = generation.settings.get(column, {})
    head = dict(given.get("head", {})) if isinstance(given, Mapping) else {}
    if head:
        return head
    info = {
        "description": f"maskmill generation {generation.number}",
        "version": str(generation.number),
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
    for category_id, row in zip(categories.count(category_of(row) for row in rows), rows, strict=True):
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
