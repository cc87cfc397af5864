from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmill.storage.shards import arrow
from maskmill.storage.shards.arrow import table_of

SCHEMA = pa.schema(
    [("number", pa.int64()), ("small", pa.int32()), ("share", pa.float64()), ("text", pa.string())]
)
ROW = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.floats(allow_nan=False) | st.integers(-9, 9),
    st.none() | st.text(),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(ROW, max_size=20))
def test_a_table_is_the_one_pyarrow_makes(rows: list[tuple[object, ...]]) -> None:
    columns = {name: [row[place] for row in rows] for place, name in enumerate(SCHEMA.names)}
    table = table_of(columns, SCHEMA)
    table.validate(full=True)
    assert table.equals(pa.table(columns, SCHEMA))


@pytest.mark.parametrize(
    ("column", "value"),
    [("number", 2**63), ("number", 0.5), ("small", "1"), ("share", "x"), ("text", 5), ("text", "\ud800")],
)
def test_values_of_another_type_are_named(column: str, value: object) -> None:
    columns = {name: [None] for name in SCHEMA.names} | {column: [value]}
    with pytest.raises(ValueError, match=f"column {column}"):
        table_of(columns, SCHEMA)


def test_many_rows_are_read_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Arrow's threads and without."""
    table = pa.table({"number": list(range(50)), "text": [str(number) for number in range(50)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=7)
    for worth in (0, 49, 50):
        monkeypatch.setattr(arrow, "WORTH_THREADS", worth)
        assert arrow.read_table(sink.getvalue().to_pybytes()).equals(table)


def test_writing_and_reading_an_index_imports_no_pandas(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from maskmill.storage.shards.index import read_index, write_index\n"
        "from maskmill.storage.stores.open import open_store\n"
        "from tests.storage.datasets import index_rows\n"
        f"store = open_store({str(tmp_path)!r})\n"
        "written = write_index(store, 'i.parquet', list(index_rows(['1', '2'])))\n"
        "assert read_index(store, written).num_rows == 2\n"
        "assert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
