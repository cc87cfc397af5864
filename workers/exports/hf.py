"""A generation for Hugging Face's `datasets`: Parquet with the photographs inside.

    data/train-00000.parquet, ...   a row per image, masks as lists of structs
    README.md                       the dataset card, which tells `load_dataset` where the files are

How it works: images go into files of limited size, each published whole and then noted (parts.py), so a
killed export goes on. The schema carries `datasets`' own feature description, so `image` comes back
decoded:

    datasets.load_dataset("EXPORT_FOLDER", split="train")[0]["image"]

What it does not do: one process writes all; each split is a pass over the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from maskmill.storage.shards.shards import HashingWriter
from maskmill.workers.exports.categories import Categories
from maskmill.workers.exports.chosen import splits
from maskmill.workers.exports.chosen.classes import CLASS
from maskmill.workers.exports.chosen.selection import class_of
from maskmill.workers.exports.given import KeptEntries, given_categories, is_crowd
from maskmill.workers.exports.parts import Ahead, export_parts, note_part
from maskmill.workers.exports.report import SCHEMA, ExportedFile, ExportReport
from maskmill.workers.exports.samples import ExportImage

if TYPE_CHECKING:
    import pyarrow as pa

    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportTask

SPLITS = {"": "train", splits.TRAIN: "train", splits.VAL: "validation", splits.TEST: "test"}
"""Our splits by the names that `datasets` gives them."""

GROUP_BYTES = 64 << 20
SCHEMA_NUMBER = 2
"""Raised with `row_schema`: files of two schemas in one folder are no dataset of `datasets`."""
GROUP_IMAGES = 100
"""A row group holds at most so much: readers hold one in memory."""


def write(task: ExportTask) -> ExportReport:
    """Writes a generation as Parquet files and a dataset card; see `WriteExport`."""
    numbers = None if not task.choices.ids_of else _Numbers(task)
    write_file = partial(_write_file, numbers=numbers)
    return export_parts(task, _file_name, write_file, _card, extra={SCHEMA: SCHEMA_NUMBER})


class _Numbers:
    """An import's numbers for rows of other masks of its pictures (`ids_of`)."""

    def __init__(self, task: ExportTask) -> None:
        choices = task.choices
        self._kept = KeptEntries(task.store, task.generation, choices.ids_of)
        self._categories = Categories(given_categories(task.generation, choices.ids_of), choices.classes)

    def put_in(self, image: ExportImage) -> ExportImage:
        """With the file's image id and name, and each mask's category id; a word as id goes beside."""
        info, rows = image.record["image"], image.record["annotations"]
        id_, name = self._kept.id_of(image.sample.key, info["image_id"]), self._kept.name_of(image.sample.key)
        told = {"image_id": id_} if isinstance(id_, int) else {"given_id": id_}
        told |= {} if name is None else {"given_name": name}
        numbers = self._categories.count(class_of(row) for row in rows)
        numbered = [{**row, "category_id": number} for row, number in zip(rows, numbers, strict=True)]
        return replace(image, record={**image.record, "image": {**info, **told}, "annotations": numbered})


def row_schema() -> pa.Schema:
    """A row: the image and its masks; the metadata is `datasets`' own."""
    import pyarrow as pa

    numbers = pa.list_(pa.float64())
    mask = pa.struct(
        [
            ("id", pa.int64()),
            ("counts", pa.string()),
            ("bbox", numbers),
            ("area", pa.int64()),
            ("predicted_iou", pa.float64()),
            ("stability_score", pa.float64()),
            ("crop_box", numbers),
            ("point_coords", pa.list_(numbers)),
            ("output_token", pa.int32()),
            ("parent", pa.int64()),
            ("category", pa.string()),
            ("iscrowd", pa.bool_()),
            ("extra", pa.string()),
        ]
    )
    fields = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source", pa.string()),
        ("caption", pa.string()),
        ("masks", pa.list_(mask)),
        ("extra", pa.string()),
    ]
    info = {"info": {"features": _features(pa.schema(fields))}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(info)})


def _features(schema: pa.Schema) -> dict[str, Any]:
    return {
        field.name: {"_type": "Image"} if field.name == "image" else _feature(field.type) for field in schema
    }


def _feature(kind: pa.DataType) -> Any:
    import pyarrow.types as kinds

    if kinds.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if kinds.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": "float64" if kinds.is_float64(kind) else str(kind), "_type": "Value"}


_MASK_FIELDS = (
    "id",
    "bbox",
    "area",
    "predicted_iou",
    "stability_score",
    "crop_box",
    "point_coords",
    "output_token",
    "parent",
)
_IMAGE_FIELDS = ("image_id", "key", "width", "height", "source", "caption")


def _row(image: ExportImage) -> dict[str, Any]:
    """What is not in the schema (labels, names, captions of models) is kept as JSON in `extra`."""
    info = image.record["image"]
    others = {name: value for name, value in image.record.items() if name not in ("image", "annotations")}
    others |= {name: value for name, value in info.items() if name not in (*_IMAGE_FIELDS, "file_name")}
    return {
        "image": {"bytes": image.jpeg, "path": info["file_name"]},
        **{name: info.get(name) for name in _IMAGE_FIELDS},
        "masks": [_mask(annotation) for annotation in image.record["annotations"]],
        "extra": _json(others),
    }


def _mask(annotation: dict[str, Any]) -> dict[str, Any]:
    known = (*_MASK_FIELDS, "segmentation", "iscrowd", CLASS)
    return {
        **{name: annotation.get(name) for name in _MASK_FIELDS},
        "counts": annotation["segmentation"]["counts"],
        "category": class_of(annotation),
        "iscrowd": is_crowd(annotation),
        "extra": _json({name: value for name, value in annotation.items() if name not in known}),
    }


def _json(value: dict[str, Any]) -> str | None:
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else None


def _write_file(
    target: ObjectStore,
    name: str,
    images: Ahead,
    max_images: int,
    max_bytes: int,
    *,
    numbers: _Numbers | None,
) -> ExportedFile:
    import pyarrow.parquet as pq

    schema = row_schema()
    num_images, num_masks = 0, 0
    with target.open_write(name) as published:
        out = HashingWriter(published)
        with pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as writer:
            group: list[dict[str, Any]] = []
            group_bytes = 0
            for image in images.part(_size, max_images=max_images, max_bytes=max_bytes):
                group.append(_row(image if numbers is None else numbers.put_in(image)))
                group_bytes += _size(image)
                num_images, num_masks = num_images + 1, num_masks + image.num_masks
                if group_bytes >= GROUP_BYTES or len(group) >= GROUP_IMAGES:
                    writer.write_table(_table(group, schema))
                    group, group_bytes = [], 0
            if group:
                writer.write_table(_table(group, schema))
    file = ExportedFile(
        name=name,
        size_bytes=out.num_bytes,
        sha256=out.hexdigest(),
        num_images=num_images,
        num_masks=num_masks,
    )
    note_part(target, file)
    return file


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema)


def _size(image: ExportImage) -> int:
    return len(image.jpeg) + len(image.record_json())


def _file_name(number: int, split: str = "") -> str:
    return f"data/{SPLITS[split]}-{number:05d}.parquet"


def _card(generation: Generation, files: Sequence[ExportedFile]) -> bytes:
    images, masks = sum(file.num_images for file in files), sum(file.num_masks for file in files)
    stems = {file.name.removeprefix("data/").rpartition("-")[0] for file in files}
    names = [name for name in dict.fromkeys(SPLITS.values()) if name in stems] or ["train"]
    listed = "\n".join(f"  - split: {name}\n    path: data/{name}-*.parquet" for name in names)
    text = f"""---
configs:
- config_name: default
  data_files:
{listed}
task_categories:
- image-segmentation
- mask-generation
---
# maskmill generation {generation.number}

{images:,} images, {masks:,} masks, published {generation.created_utc}.

`masks[i]["counts"]` are COCO's compressed run lengths over `height` x `width`:

    from pycocotools import mask
    mask.decode({{"size": [row["height"], row["width"]], "counts": row["masks"][0]["counts"]}})

`bbox` is x, y, w, h between inclusive corners, as in SA-1B. `category` is the best label or
name, null without; `iscrowd` marks many objects outlined as one. `extra` is JSON: labels, names and captions.
"""
    return text.encode()
