"""Rows of a column that has no index: made from its samples' records, when a query names the column.

What has an index is asked there. What was made before its column had one, and imported annotations, are read
from their tars, all of the generation's: a query of them costs a pass over that column.

It does not know: what a column's record means; who asks brings a `RecordRows` for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from maskmill.storage.dataset.join import read_row
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.saves import read_standings, saved_numbers, saves_of
from maskmill.storage.errors import DamagedObject
from maskmill.storage.json_text import load_object
from maskmill.storage.shards.arrow import table_of
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["string", "int64", "float64"]


@dataclass(frozen=True)
class RecordRows:
    """How the record of one image becomes rows.

    Attributes:
        fields: of a row and their kinds, beside `key`; any of them may be null.
        rows: of a record; each a mapping of some of the fields. It raises KeyError, TypeError or ValueError
            for a record that doesn't fit.
    """

    fields: Mapping[str, Kind]
    rows: Callable[[Mapping[str, Any]], Iterable[Mapping[str, object]]]


def _whole(record: Mapping[str, Any]) -> Iterator[Mapping[str, object]]:
    yield {"record": json.dumps(record, sort_keys=True)}


WHOLE = RecordRows({"record": "string"}, _whole)
"""A row per image with its record as JSON, for columns that nobody brought rows for."""


def rows_schema(how: RecordRows) -> pa.Schema:
    """The rows' fields as pyarrow has them, `key` first."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            *(pa.field(name, kinds[kind]) for name, kind in how.fields.items()),
        ]
    )


def record_table(store: ObjectStore, rows: Sequence[GenerationRow], how: RecordRows) -> pa.Table:
    """The rows of a column's records, in key order.

    Args:
        store: the dataset.
        rows: the generation's rows of the column.
        how: its records become rows.

    Raises:
        DamagedObject: a tar, or a record in it, isn't what it should be.
        ObjectNotFound: a tar is gone.
    """
    schema = rows_schema(how)
    columns: dict[str, list[object]] = {name: [] for name in schema.names}
    for row in rows:
        for sample in read_row(store, row):
            if sample.files.get("json", b"null") == b"null":
                continue  # what has no record, such as embeddings or a picture nobody reviewed, has no rows
            try:
                for found in how.rows(load_object(sample.files["json"])):
                    columns["key"].append(sample.key)
                    for name in how.fields:
                        columns[name].append(found.get(name))
            except (KeyError, TypeError, ValueError) as exc:
                where = f"{store.root}/{row.data.name}: {sample.key}"
                raise DamagedObject(f"{where} is no record of {row.column} ({exc})") from exc
    return _table(store, columns, schema, rows[0].column if rows else "column")


def save_table(store: ObjectStore) -> pa.Table:
    """A row per save of what people made, all of them, in the order of keys and numbers.

    Raises:
        DamagedObject: a save cannot be read.
    """
    found = [save for key in saved_numbers(store) for save in saves_of(store, key)]
    in_force = {
        (key, of.in_force.number)
        for key, of in read_standings(store, saved_numbers(store))
        if of.in_force is not None
    }
    columns: dict[str, list[object]] = {name: [] for name in ("key", *SAVE_FIELDS)}
    for save in found:
        row = {
            **{name: getattr(save, name, None) for name in columns},
            "finished": int(save.finished),
            "in_force": int((save.key, save.number) in in_force),
            "masks": len(save.annotations),
            "rejected": len(save.rejected),
            "generation": save.base.generation,
        }
        for name, values in columns.items():
            values.append(row[name])
    return _table(store, columns, rows_schema(RecordRows(SAVE_FIELDS, _whole)), "saves")


SAVE_FIELDS: Mapping[str, Kind] = {
    "number": "int64",
    "in_force": "int64",
    "who": "string",
    "made_by": "string",
    "tool": "string",
    "created_utc": "string",
    "seconds": "float64",
    "clicks": "int64",
    "finished": "int64",
    "masks": "int64",
    "rejected": "int64",
    "generation": "int64",
    "note": "string",
}
"""Of a row of `save_table`, beside `key`."""


def _table(store: ObjectStore, columns: Mapping[str, list[object]], schema: pa.Schema, name: str) -> pa.Table:
    """Raises DamagedObject."""
    try:
        return table_of(columns, schema)
    except (TypeError, ValueError, OverflowError) as exc:  # pyarrow's own errors are among these
        raise DamagedObject(f"{store.root}: a record of {name} has a value of another kind ({exc})") from exc
