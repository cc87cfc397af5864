"""A generation as one COCO JSON, with run-length masks, and the photographs beside it.

How it works: image entries stream into the file while annotations wait in a temporary file on the local
disk, which is appended at the end; memory stays flat whatever the number of masks. Every mask is of the one
category "object". `bbox` is pycocotools' `toBbox` (its width and height count pixels: one more than in the
SA-1B record), because COCO's readers clip and compare with that rule. Ids are those of the records, which
are never 0: pycocotools' evaluation takes an annotation of id 0 for "no match".

What it does not know: a JSON beyond some hundred thousand images is valid, but few readers can load it; use
the SA-1B tars then.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pycocotools import mask as coco_mask

from storage.objects import open_store
from storage.shards import HashingWriter
from workers.exports.report import ExportedFile, ExportPlan, ExportReport, claim, find_complete, finish
from workers.exports.samples import ExportImage, column_option, count_unannotated, export_images
from workers.survey import count_rejects

if TYPE_CHECKING:
    from storage.generations import Generation
    from storage.objects import ObjectStore

ANNOTATIONS = "annotations.json"
CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}
COPY_BYTES = 1 << 20


def export_coco(
    store: ObjectStore,
    generation: Generation,
    destination: str,
    *,
    images: bool = True,
    column: str = "masks",
    progress: Callable[[int], None] | None = None,
) -> ExportReport:
    """Writes `annotations.json` and, if wanted, `images/sa_<image id>.jpg`.

    Args:
        store: the dataset.
        generation: what of it to export.
        destination: an empty or new folder or s3:// prefix, or one where this export was begun.
        images: also write the photographs, upright, as the masks fit them.
        column: that has the masks; an imported one is written in the words it came in.
        progress: called with the number of images written so far.

    Returns:
        What was written; an export that is complete already is only reported.

    Raises:
        ExportError: the destination holds something else.
        storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    plan = ExportPlan(
        format="coco",
        dataset=store.root,
        generation=generation.number,
        options={"images": images, **column_option(column)},
    )
    target = open_store(destination)
    complete = find_complete(target, plan)
    if complete is not None:
        return complete
    started_s = time.monotonic()
    claim(target, plan)
    file, image_bytes = _write_all(store, generation, target, images, column, progress)
    report = ExportReport(
        format="coco",
        destination=target.root,
        generation=generation.number,
        num_images=file.num_images,
        num_masks=file.num_masks,
        rejects=count_rejects(store, generation),
        files=(file,),
        size_bytes=file.size_bytes + image_bytes,
        seconds=time.monotonic() - started_s,
        num_unannotated=count_unannotated(generation, column),
        num_loose_images=file.num_images if images else 0,
    )
    finish(target, plan, report)
    return report


def _write_all(
    store: ObjectStore,
    generation: Generation,
    target: ObjectStore,
    images: bool,
    column: str,
    progress: Callable[[int], None] | None,
) -> tuple[ExportedFile, int]:
    num_images, num_masks, image_bytes = 0, 0, 0
    with target.open_write(ANNOTATIONS) as published, tempfile.TemporaryFile() as spool:
        out = HashingWriter(published)
        out.write(_head(generation, column))
        for image in export_images(store, generation, pictures=images, column=column):
            out.write((b",\n" if num_images else b"\n") + _dump(image_entry(image)))
            for entry in annotation_entries(image):
                spool.write((b",\n" if num_masks else b"\n") + _dump(entry))
                num_masks += 1
            if images:
                target.put(f"images/{image_entry(image)['file_name']}", image.jpeg)
                image_bytes += len(image.jpeg)
            num_images += 1
            if progress is not None:
                progress(num_images)
        out.write(b'\n],\n"annotations": [')
        spool.seek(0)
        shutil.copyfileobj(spool, cast(BinaryIO, out), COPY_BYTES)
        out.write(b"\n]}\n")
    file = ExportedFile(
        name=ANNOTATIONS,
        size_bytes=out.num_bytes,
        sha256=out.hexdigest(),
        num_images=num_images,
        num_masks=num_masks,
    )
    return file, image_bytes


def _head(generation: Generation, column: str) -> bytes:
    """The file's beginning; of imported COCO annotations, as it came in."""
    given = generation.settings.get(column, {})
    head = dict(given.get("head", {})) if isinstance(given, Mapping) else {}
    if not head:
        info = {
            "description": f"maskmill generation {generation.number}",
            "version": str(generation.number),
            "contributor": "maskmill",
        }
        head = {"info": info, "licenses": [], "categories": [CATEGORY]}
    lines = b"".join(b"%s: %s,\n" % (_dump(name), _dump(value)) for name, value in head.items())
    return b"{" + lines + b'"images": ['


def image_entry(image: ExportImage) -> dict[str, Any]:
    """COCO's image: id, file name, width, height; `source` and `caption` where known."""
    if image.original is not None:
        return dict(image.original)
    info = image.record["image"]
    extra = {name: info[name] for name in ("source", "caption") if info.get(name) is not None}
    return {
        "id": info["image_id"],
        "file_name": f"{image.stem}.jpg",
        "width": info["width"],
        "height": info["height"],
        **extra,
    }


def annotation_entries(image: ExportImage) -> Iterator[dict[str, Any]]:
    """COCO's annotations of an image: as they came in, where they were imported."""
    if image.original is not None:
        yield from (dict(annotation) for annotation in image.original_annotations)
        return
    for annotation in image.record["annotations"]:
        yield annotation_entry(image, annotation)


def annotation_entry(image: ExportImage, annotation: Mapping[str, Any]) -> dict[str, Any]:
    """COCO's annotation of one SA-1B annotation; scores, `output_token` and `parent` ride along.

    Raises:
        ValueError: the run lengths are not COCO's.
    """
    segmentation = annotation["segmentation"]
    box_xywh = coco_mask.toBbox(
        {"size": segmentation["size"], "counts": segmentation["counts"].encode("ascii")}
    )
    return {
        "id": annotation["id"],
        "image_id": image.record["image"]["image_id"],
        "category_id": CATEGORY["id"],
        "segmentation": segmentation,
        "area": annotation["area"],
        "bbox": [float(value) for value in box_xywh],
        "iscrowd": 0,
        "predicted_iou": annotation["predicted_iou"],
        "stability_score": annotation["stability_score"],
        "output_token": annotation.get("output_token"),
        "parent": annotation.get("parent"),
    }


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
