"""A condition in SQL on rows that are in memory: which of them hold it.

DuckDB's dialect, the rows as a table `masks` and nothing else: no files, no network; see query.py. A
condition is tried on no rows first, so that a wrong name is told before anything is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.storage.query.query import LOCKED, QueryError

if TYPE_CHECKING:
    import pyarrow as pa


class RowCondition:
    """A condition on the rows of a schema.

    Args:
        sql: what stands after `where`.
        schema: of the rows.
        name: of the setting it came from, for errors.

    Raises:
        QueryError: no condition on these columns.
    """

    def __init__(self, sql: str, schema: pa.Schema, name: str) -> None:
        import duckdb

        self._sql, self._schema, self._name = sql, schema, name
        self._connection = duckdb.connect(":memory:", config=LOCKED)
        self.holds([])

    def holds(self, rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether the condition holds, for each row; where it is unknown (null) it doesn't.

        Raises:
            QueryError: the condition cannot be judged for these rows.
        """
        import duckdb
        import pyarrow as pa

        columns = {name: [row.get(name) for row in rows] for name in self._schema.names}
        columns["_place"] = list(range(len(rows)))
        schema = self._schema.append(pa.field("_place", pa.int64()))
        self._connection.register("masks", pa.table(columns, schema=schema))
        try:
            cursor = self._connection.execute(f"select _place from masks where ({self._sql}\n)")
            kept = {place for (place,) in cursor.fetchall()}
        except (duckdb.Error, RuntimeError) as exc:
            words = " ".join(str(exc).partition("\n\nLINE ")[0].partition(": ")[2].split())
            raise QueryError(
                f"{self._name}={self._sql!r} is no condition on {', '.join(self._schema.names)}: {words}"
            ) from exc
        return [place in kept for place in range(len(rows))]
