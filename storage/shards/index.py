"""The index of a column: Parquet rows beside each shard, for finding things without opening tars.

Masks have a row per mask; another column may have fields of its own, `key` always among them.

It is derived from the tar and written in the same attempt; the commit record names and checks both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.arrow import read_table, table_of
from maskmill.storage.shards.shards import HashingWriter, WrittenObject, read_object
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class IndexField:
    """A field of an index's rows.

    Attributes:
        name: of the field.
        kind: "string", "int32", "int64", "float64" or "bool".
        nullable: whether a row may lack a value.
    """

    name: str
    kind: Literal["string", "int32", "int64", "float64", "bool"]
    nullable: bool = False


MASK_INDEX = (
    IndexField("key", "string"),
    IndexField("image_id", "int64"),
    IndexField("annotation_id", "int64"),
    IndexField("area_px", "int64"),
    IndexField("bbox_x", "float64"),
    IndexField("bbox_y", "float64"),
    IndexField("bbox_w", "float64"),
    IndexField("bbox_h", "float64"),
    IndexField("predicted_iou", "float64"),
    IndexField("stability_score", "float64"),
    IndexField("output_token", "int32"),
    IndexField("parent", "int64", nullable=True),
    IndexField("source", "string"),
)
"""A row per mask.

key: the sample's; image_id, annotation_id: as in the SA-1B record; area_px: mask pixels; bbox_x, bbox_y,
bbox_w, bbox_h: pixels of the stored picture; predicted_iou, stability_score: 0 to 1; output_token: which of
the decoder's outputs; parent: the annotation_id of the smallest kept mask that contains it, or null; source:
where the picture came from.
"""


def index_schema(fields: Sequence[IndexField] = MASK_INDEX) -> pa.Schema:
    """The fields as pyarrow has them.

    Raises:
        ValueError: there is no `key`, by which rows are found and forgotten.
    """
    import pyarrow as pa

    if not any(field.name == "key" and field.kind == "string" for field in fields):
        raise ValueError(f"an index of {[field.name for field in fields]} has no key: add the sample's")
    kinds = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
    }
    return pa.schema([pa.field(one.name, kinds[one.kind], nullable=one.nullable) for one in fields])


def write_index(
    store: ObjectStore,
    name: str,
    rows: Sequence[Mapping[str, object]],
    fields: Sequence[IndexField] = MASK_INDEX,
) -> WrittenObject:
    """Writes a shard's rows, in the order given; equal rows make equal bytes.

    Args:
        store: the dataset's.
        name: of the object.
        rows: a mapping of the fields each.
        fields: of a row, `key` among them.

    Raises:
        ValueError: a row lacks a field, has one more, or a value of another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = index_schema(fields)
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
        optional = [field.name for field in fields if field.nullable]
        raise ValueError(f"index rows without a value for {lacking}; may be null: {optional or 'none'}")

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
