"""A search through a generation: shards are asked in order, a few at a time, until a page is full.

What was found is kept, a short row a picture, so pages can be asked again, in any order, and a sort over
a million pictures needs their short rows and nothing else. A page in key order stops the search as soon as it
is full; any other order goes on behind the answer until all shards were asked, and says how far it is.

Every search has a DuckDB of its own, in memory, locked down as `maskmill query` is.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskmill.storage.browse.filters import COPIES, Filters, Need, needs_of, order_of
from maskmill.storage.browse.gain import LABELLED, RARITY_OF_ALL
from maskmill.storage.browse.statement import labels_of, statement
from maskmill.storage.errors import StorageError
from maskmill.storage.query.query import LOCKED, QueryError, query_sentence

if TYPE_CHECKING:
    import pyarrow as pa

    from maskmill.storage.browse.catalogue import Catalogue

MOST_SHARDS = 32  # asked at once
BATCH_TIMEOUT_S = 60.0
MEMORY = "400MB"
TABLES = ("masks", "images")

FOUND = (
    "create table found (key varchar, shard bigint, masks bigint, matching bigint, min_iou float, "
    "min_stability float, doubt float, largest_px bigint, smallest_px bigint, gain float, "
    "gain_by_size float, reject varchar)"
)


@dataclass(frozen=True)
class FoundPicture:
    """A picture of a page.

    Attributes:
        key, shard: which.
        masks: it has; `matching` of them fit the filters on masks.
        min_iou, min_stability: the lowest of its masks' scores; None without masks.
        reject: the reason that a column rejected it for, None for none.
    """

    key: str
    shard: int
    masks: int
    matching: int
    min_iou: float | None
    min_stability: float | None
    reject: str | None


@dataclass(frozen=True)
class FoundPage:
    """A page of a search.

    Attributes:
        pictures: of the page.
        found: pictures so far.
        searched: share of the shards that were asked, 0 to 1.
        complete: whether all were.
    """

    pictures: tuple[FoundPicture, ...]
    found: int
    searched: float
    complete: bool


class Search:
    """One set of filters over a generation. Safe to share between threads; `close` ends it.

    Args:
        catalogue: the generation.
        filters: what is looked for.
        needs: of the orders that will be asked for (`needs_of`): they cost more.

    Raises:
        NoSuchThing: filters name a generation or a set of pictures that isn't there.
    """

    def __init__(self, catalogue: Catalogue, filters: Filters, needs: Collection[Need] = ()) -> None:
        import duckdb

        self._catalogue, self._filters, self._needs = catalogue, filters, needs
        self._keys = catalogue.chosen(filters.chosen) if filters.chosen else None
        self._shards = catalogue.shards_for(filters.since, self._keys)
        self._connection = duckdb.connect(":memory:", config={"memory_limit": MEMORY, **LOCKED})
        self._connection.execute(FOUND)
        self._connection.execute(f"create table {COPIES} (key varchar)")
        if "labels" in needs:
            self._connection.execute(f"create table {LABELLED} (key varchar, word varchar)")
            self._connection.execute(RARITY_OF_ALL)
        self._knows_copies = False
        self._asked = self._found = 0
        self._wanted = 0.0
        self._error: StorageError | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def page(self, sort: str, offset: int, limit: int, *, seed: int = 0, wait_s: float = 1.2) -> FoundPage:
        """Some of the pictures found, in an order; waits for enough of them, but not for ever.

        Args:
            sort: of `SORTS`.
            offset, limit: which of them.
            seed: of the random order.
            wait_s: then what there is so far is the page.

        Raises:
            InputError: no such order.
            QueryError: the condition in SQL cannot be answered.
            StorageError: a shard cannot be read.
        """
        order = self._order(sort, seed)
        wanted = offset + limit + 1 if sort == "key" else float("inf")
        self._await(wanted, wait_s)
        with self._changed:  # before the rows are read: a page that says that it is complete has all
            searched = self._asked / len(self._shards) if self._shards else 1.0
            found, is_complete = self._found, self._is_complete()

        cursor = self._connection.cursor()
        rows = cursor.execute(
            "select key, shard, masks, matching, min_iou, min_stability, reject "
            f"from found order by {order} limit ? offset ?",
            [limit, offset],
        ).fetchall()
        pictures = tuple(FoundPicture(*row) for row in rows)
        found = max(found, offset + len(pictures)) if pictures else found
        return FoundPage(pictures, found, searched, is_complete)

    def keys(self, sort: str, *, seed: int = 0, most: int | None = None, wait_s: float = 600.0) -> list[str]:
        """The keys of all pictures found, or of the first ones, in an order; waits for the whole search.

        Raises:
            InputError, QueryError, StorageError: as `page`.
        """
        return self.keys_so_far(sort, seed=seed, most=most, wait_s=wait_s)[0]

    def keys_so_far(
        self, sort: str, *, seed: int = 0, most: int | None = None, wait_s: float
    ) -> tuple[list[str], bool]:
        """As `keys`, and whether all shards had been asked when they were read.

        Raises:
            InputError, QueryError, StorageError: as `page`.
        """
        order = self._order(sort, seed)
        self._await(float("inf") if sort != "key" or most is None else most, wait_s)
        with self._changed:  # before the rows are read, as for a page
            is_complete = self._is_complete()
        limit = "" if most is None else f" limit {int(most)}"
        rows = self._connection.cursor().execute(f"select key from found order by {order}{limit}").fetchall()
        return [str(key) for (key,) in rows], is_complete

    def close(self) -> None:
        """Has the search end after the shards in hand; pages of what was found can still be asked."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _order(self, sort: str, seed: int) -> str:
        """The SQL of an order, and what it needs beside the pictures that are found."""
        order = order_of(sort, seed)
        assert needs_of(sort) <= set(self._needs), f"a search begun without what {sort!r} needs"
        if COPIES not in order:
            return order
        copies = _column("key", sorted(self._catalogue.copies()))
        with self._changed:
            if not self._knows_copies:
                cursor = self._connection.cursor()
                cursor.register("found_copies", copies)
                cursor.execute(f"insert into {COPIES} select key from found_copies")
                cursor.close()
                self._knows_copies = True
        return order

    def _is_complete(self) -> bool:
        return self._asked >= len(self._shards)

    def _await(self, wanted: float, wait_s: float) -> None:
        """Has the search go on until so many pictures are found, all shards asked, or the time is over."""
        with self._changed:
            self._wanted = max(self._wanted, wanted)
            if not self._enough() and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="search", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._found >= wanted or self._enough(), timeout=wait_s)
            if self._error is not None:
                raise self._error

    def _enough(self) -> bool:
        ended = self._closed or self._error is not None or self._is_complete()
        return ended or self._found >= self._wanted

    def _run(self) -> None:
        """Asks batch after batch, each larger than the last one."""
        size = 1
        while True:
            with self._changed:
                if self._enough():
                    self._thread = None
                    return
                shards = self._shards[self._asked : self._asked + size]
            error: StorageError | None = StorageError("a search was ended by an error of maskmill's own")
            found = 0
            try:
                found, error = self._ask(shards), None
            except StorageError as exc:
                error = exc
            finally:
                with self._changed:
                    self._asked += len(shards)
                    self._found += found
                    self._error = error
                    self._changed.notify_all()
            size = min(2 * size, MOST_SHARDS)

    def _ask(self, shards: Sequence[int]) -> int:
        """Adds what some shards have to what was found. Raises QueryError, StorageError."""
        import duckdb

        tables = dict(self._tables(shards))
        cursor = self._connection.cursor()
        expired = threading.Event()

        def stop() -> None:
            """Ends the statement, and says why it ended."""
            expired.set()
            cursor.interrupt()

        timer = threading.Timer(BATCH_TIMEOUT_S, stop)
        timer.daemon = True
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            fields = {name: table.schema.names for name, table in tables.items()}
            asked = statement(self._filters, fields, self._needs)
            timer.start()
            if "labels" in self._needs and (labels := labels_of(fields)):
                cursor.execute(labels)
            counted = cursor.execute(asked.sql, asked.values).fetchone()
        except (duckdb.Error, RuntimeError, UnicodeError) as exc:
            if expired.is_set():
                raise QueryError(f"the search was stopped: a part of it took {BATCH_TIMEOUT_S:g} s") from exc
            raise QueryError(query_sentence(exc, TABLES)) from exc
        finally:
            timer.cancel()
            cursor.close()
        return int(counted[0]) if counted is not None else 0

    def _tables(self, shards: Sequence[int]) -> Iterator[tuple[str, Any]]:
        """The tables that the filters need of some shards, by name."""
        catalogue, filters = self._catalogue, self._filters
        images = catalogue.images(shards, self._keys)
        yield "images", images
        if (masks := catalogue.masks(shards)) is not None:
            yield "masks", masks
        if (verdicts := catalogue.verdicts(shards)) is not None:
            yield "verdicts", verdicts

        rejects = catalogue.rejects(shards)
        yield "rejects", _pairs([key for key, _, _ in rejects], [reason for _, _, reason in rejects])
        if filters.since:
            yield "differences", _counted(catalogue.differences(filters.since, shards))
        if filters.made_by:
            makers = catalogue.makers(images["key"].to_pylist())
            yield "makers", _pairs(list(makers), list(makers.values()))
        if filters.made_by and (reviews := catalogue.reviews(shards)) is not None:
            yield "reviews", reviews
        if filters.text and (captions := catalogue.captions(shards)) is not None:
            yield "captions", captions
        if filters.label or "labels" in self._needs:
            for place, words in enumerate(catalogue.words(shards)):
                yield f"words{place}", words


def _pairs(keys: list[str], words: list[str]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema([("key", pa.string()), ("word", pa.string())])
    return pa.table({"key": keys, "word": words}, schema=schema)


def _column(name: str, values: list[str]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: values}, schema=pa.schema([(name, pa.string())]))


def _counted(rows: Iterable[tuple[str, int, int, int]]) -> pa.Table:
    import pyarrow as pa

    names = ("added", "removed", "changed")
    schema = pa.schema([("key", pa.string()), *((name, pa.int64()) for name in names)])
    found = [dict(zip(("key", *names), row, strict=True)) for row in rows]
    return pa.Table.from_pylist(found, schema=schema)
