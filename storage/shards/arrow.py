"""Rows into Arrow tables without pandas.

Where pandas is installed, `pa.array` of a list imports it first, and so does `pq.read_table`: seconds, in
every worker. Buffers made by hand need neither; what they don't cover goes the long way.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

WORTH_THREADS = 20_000  # rows: for fewer, Arrow's threads cost more than they save


def table_of(columns: Mapping[str, Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """A table of columns of equal length.

    Raises:
        ValueError: a value is not of its column's type.
    """
    import pyarrow as pa

    arrays = []
    for field in schema:
        try:
            arrays.append(_array(columns[field.name], field.type))
        except (TypeError, ValueError, OverflowError, AttributeError, pa.ArrowException) as exc:
            raise ValueError(f"column {field.name}: {exc}") from exc
    return pa.Table.from_arrays(arrays, schema=schema)


def read_table(data: bytes) -> pa.Table:
    """A Parquet file's rows. Raises pa.ArrowException."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(use_threads=file.metadata.num_rows > WORTH_THREADS)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    codes = {pa.int64(): "q", pa.int32(): "i", pa.float64(): "d"}
    mask = _validity(values)
    if kind in codes:
        plain = [0 if value is None else value for value in values] if mask else values
        buffers = [mask, pa.py_buffer(array(codes[kind], plain))]
    elif kind == pa.string():
        encoded = [b"" if value is None else str.encode(value) for value in values]
        ends, end = array("i", [0]), 0
        for text in encoded:
            end += len(text)
            ends.append(end)
        buffers = [mask, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    else:
        return pa.array(values, kind)
    return pa.Array.from_buffers(kind, len(values), buffers)


def _validity(values: Sequence[Any]) -> pa.Buffer | None:
    """A bit for each value that is there; None if all are."""
    import pyarrow as pa

    if all(value is not None for value in values):
        return None
    bits = bytearray(-(-len(values) // 8))
    for place, value in enumerate(values):
        if value is not None:
            bits[place >> 3] |= 1 << (place & 7)
    return pa.py_buffer(bytes(bits))
