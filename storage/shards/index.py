"""The mask index: a Parquet row per mask beside each masks shard, for finding masks without opening tars.

It is derived from the tar and written in the same attempt; the commit record names and checks both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.arrow import read_table, table_of
from maskmill.storage.shards.shards import HashingWriter, WrittenObject, read_object
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa


def mask_index_schema() -> pa.Schema:
    """The columns of a row.

    key: the sample's; image_id, annotation_id: as in the SA-1B record; area_px: mask pixels; bbox_x, bbox_y,
    bbox_w, bbox_h: pixels of the stored picture; predicted_iou, stability_score: 0 to 1; output_token: which
    of the decoder's outputs; parent: the annotation_id of the smallest kept mask that contains it, or null;
    source: where the picture came from.
    """
    import pyarrow as pa

    fields = {
        "key": pa.string(),
        "image_id": pa.int64(),
        "annotation_id": pa.int64(),
        "area_px": pa.int64(),
        "bbox_x": pa.float64(),
        "bbox_y": pa.float64(),
        "bbox_w": pa.float64(),
        "bbox_h": pa.float64(),
        "predicted_iou": pa.float64(),
        "stability_score": pa.float64(),
        "output_token": pa.int32(),
        "parent": pa.int64(),
        "source": pa.string(),
    }
    return pa.schema([pa.field(name, kind, nullable=name == "parent") for name, kind in fields.items()])


def write_index(store: ObjectStore, name: str, rows: Sequence[Mapping[str, object]]) -> WrittenObject:
    """Writes a shard's rows, in the order given; equal rows make equal bytes.

    Raises:
        ValueError: a row lacks a column, has one more, or a value of another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = mask_index_schema()
    for row in rows:
        if row.keys() != set(schema.names):
            raise ValueError(f"an index row has columns {sorted(row)}; it needs {sorted(schema.names)}")
    try:
        table = table_of({name: [row[name] for row in rows] for name in schema.names}, schema)
        table.validate(full=True)
    except (ValueError, pa.ArrowException) as exc:
        raise ValueError(f"index rows don't fit the schema: {exc}") from exc
    lacking = [field.name for field in schema if not field.nullable and table[field.name].null_count]
    if lacking:
        raise ValueError(f"index rows without a value for {lacking}; only parent may be null")
    with store.open_write(name) as target:
        hashing = HashingWriter(target)
        pq.write_table(table, hashing, compression="zstd", write_page_checksum=True)
    return WrittenObject(name, hashing.num_bytes, hashing.hexdigest(), len(rows))


def read_index(store: ObjectStore, written: WrittenObject) -> pa.Table:
    """A shard's rows, checked against the record. Raises DamagedObject, ObjectNotFound."""
    import pyarrow as pa

    try:
        table = read_table(read_object(store, written))
    except pa.ArrowException as exc:
        raise DamagedObject(f"{store.root}/{written.name}: not a readable Parquet file ({exc})") from exc
    if table.num_rows != written.num_samples:
        raise DamagedObject(f"{store.root}/{written.name}: {table.num_rows} rows, not {written.num_samples}")
    return table
