"""The tables of some shards of a generation: what a search asks, a few shards at a time.

A generation of a million pictures is never loaded: its manifest is, and of everything else only the shards in
hand. Rows come as Arrow tables and datasets that DuckDB reads without copies.

It does not know: conditions (filters.py), who asks, and what a column's record means (`rows_for`).
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.diff import RowChange, changed_rows
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.join import read_record
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.picture_sets import load_set
from maskmill.storage.dataset.record_rows import RecordRows
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.errors import DatasetError, NoSuchThing
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.plan.sources import PlannedImage
from maskmill.storage.query.column_tables import column_tables
from maskmill.storage.query.query import planned_rows
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

IMAGES = "images"
MOST_REJECTING = 100  # records that are read to know the reasons there are
WITHOUT_WORDS = frozenset({IMAGES, "masks", "candidates", "embeddings", "captions", "verdicts"})

Makers = Callable[[Sequence[str]], Mapping[str, str]]
"""Keys -> for those that people or the oracle worked on, who did: "person" or "oracle"."""

Differences = Callable[[Generation, Sequence[int]], Iterable[tuple[str, int, int, int]]]
"""An earlier generation and shards -> key, and masks added, removed and changed since, where any are."""


def _nobody(keys: Sequence[str]) -> Mapping[str, str]:
    return {}


def _unchanged(before: Generation, shards: Sequence[int]) -> Iterable[tuple[str, int, int, int]]:
    return ()


class Catalogue:
    """A generation's shards, and their tables. Safe to share between threads.

    Args:
        store: the dataset.
        generation: what is browsed.
        rows_for: how records of a column without an index become rows.
        column: that has the masks; None where nothing has any yet: pictures are empty then.
        makers: who worked on pictures.
        differences: what became of pictures' masks since another generation.
        copies: keys of pictures that are near-duplicates of one before them; asked when first needed.

    Raises:
        DatasetError: the generation has no such column.
    """

    def __init__(
        self,
        store: ObjectStore,
        generation: Generation,
        *,
        rows_for: Callable[[str], RecordRows],
        column: str | None = "masks",
        makers: Makers = _nobody,
        differences: Differences = _unchanged,
        copies: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.store, self.generation, self.column = store, generation, column or "masks"
        self.makers, self._differences = makers, differences
        self._find_copies = copies
        self._rows_for = rows_for
        self.plan = load_plans(store)
        self._by_shard: dict[int, dict[str, GenerationRow]] = defaultdict(dict)
        for row in generation.rows():
            self._by_shard[row.shard][row.column] = row
        if column is not None and not any(column in found for found in self._by_shard.values()):
            raise NoSuchThing(
                f"{store.root}: generation {generation.number} has no column {column!r}; it has "
                f"{', '.join(self.columns)}"
            )

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The generation's columns, by name."""
        return tuple(sorted({name for found in self._by_shard.values() for name in found}))

    @cached_property
    def shards(self) -> tuple[int, ...]:
        """Those with pictures, in order."""
        return tuple(sorted(shard for shard, found in self._by_shard.items() if IMAGES in found))

    @cached_property
    def num_images(self) -> int:
        """Pictures that its shards hold, rejected ones included."""
        return sum(self._by_shard[shard][IMAGES].num_read for shard in self.shards)

    def row(self, shard: int, column: str) -> GenerationRow | None:
        """A shard's row of a column; None where it has none."""
        return self._by_shard.get(shard, {}).get(column)

    def rows_of(self, shard: int) -> tuple[GenerationRow, ...]:
        """A shard's rows, by column's name."""
        return tuple(row for _, row in sorted(self._by_shard.get(shard, {}).items()))

    def planned(self, key: str) -> PlannedImage:
        """Where a picture came from.

        Raises:
            DatasetError: no such picture is in this generation.
        """
        shard = self.plan.shard_of(key)
        if shard not in self._by_shard or key in self.plan.forgotten:
            raise DatasetError(f"image {key} is not in generation {self.generation.number}")
        return next(image for image in self.plan.images(shard) if image.key == key)

    def chosen(self, name: str) -> frozenset[str]:
        """The keys of a saved set. Raises NoSuchThing, DamagedObject."""
        return frozenset(load_set(self.store, name).keys)

    def shards_for(self, since: str, keys: Collection[str] | None) -> tuple[int, ...]:
        """The shards that a search has to ask.

        Args:
            since: a generation that masks are to differ from; "" for none.
            keys: of the pictures that are looked for; None for any.

        Raises:
            NoSuchThing: there is no such generation.
            DatasetError: a key that no plan has.
        """
        wanted = set(self.shards)
        if since:
            wanted &= {row.shard for row in self._changed(since)}
        if keys is not None:
            wanted &= {self.plan.shard_of(key) for key in keys}
        return tuple(shard for shard in self.shards if shard in wanted)

    def differences(self, since: str, shards: Sequence[int]) -> Iterable[tuple[str, int, int, int]]:
        """Key, and masks added, removed and changed since a generation. Raises NoSuchThing, DamagedObject."""
        return self._differences(find_generation(self.store, since), shards)

    def copies(self) -> Collection[str]:
        """Keys of pictures that are near-duplicates of one before them. Raises DamagedObject."""
        return self._copies

    @cached_property
    def _copies(self) -> frozenset[str]:
        return frozenset(self._find_copies())

    def _changed(self, since: str) -> Iterator[RowChange]:
        rows = changed_rows(find_generation(self.store, since), self.generation)
        return (row for row in rows if row.column == self.column)

    def images(self, shards: Sequence[int], keys: Collection[str] | None = None) -> pa.Table:
        """The planned pictures of some shards, less forgotten ones; `keys` alone. Raises DamagedObject."""
        import pyarrow.dataset as ds

        number = ds.field("shard")
        found = self._planned.to_table(filter=(number >= min(shards)) & (number <= max(shards)))
        wanted = number.isin(list(shards))
        if self.plan.forgotten:
            wanted &= ~ds.field("key").isin(sorted(self.plan.forgotten))
        if keys is not None:
            wanted &= ds.field("key").isin(sorted(keys))
        return found.filter(wanted)

    def masks(self, shards: Sequence[int]) -> pa.Table | ds.Dataset | None:
        """A row a mask; None where the shards have none. Raises DamagedObject."""
        return self._table(self.column, shards)

    def verdicts(self, shards: Sequence[int]) -> pa.Table | ds.Dataset | None:
        """A row a mask with `expected_iou` and `p_right`; None where none is. Raises DamagedObject."""
        return self._table("verdicts", shards)

    def words(self, shards: Sequence[int]) -> list[pa.Table | ds.Dataset]:
        """The tables with labels or names of the shards' pictures, each with `key`. Raises DamagedObject."""
        named = [name for name in self.columns if name not in WITHOUT_WORDS]
        return [table for name in named if (table := self._table(name, shards)) is not None]

    def reviews(self, shards: Sequence[int]) -> pa.Table | ds.Dataset | None:
        """A row a mask of the column `review`, with `made_by`; None without. Raises DamagedObject."""
        return self._table("review", shards)

    def captions(self, shards: Sequence[int]) -> pa.Table | ds.Dataset | None:
        """The captions of the shards' pictures; None without. Raises DamagedObject."""
        return self._table("captions", shards)

    def rejects(self, shards: Sequence[int]) -> list[tuple[str, str, str]]:
        """Key, column and reason of what was rejected in these shards. Raises DamagedObject."""
        return [
            (reject.key, row.column, reject.reason)
            for shard in shards
            for row in self.rows_of(shard)
            if row.num_rejects
            for reject in read_record(self.store, row).rejects
        ]

    def reject_reasons(self) -> dict[str, int]:
        """Reasons for which pictures were rejected, and how many, by the first records that have any."""
        counts = Counter[str]()
        rows = (row for shard in self.shards for row in self.rows_of(shard) if row.num_rejects)
        for row in itertools.islice(rows, MOST_REJECTING):
            counts.update(reject.reason for reject in read_record(self.store, row).rejects)
        return dict(counts.most_common())

    @cached_property
    def _planned(self) -> Any:
        return planned_rows(self.store)

    def _table(self, column: str, shards: Iterable[int]) -> pa.Table | ds.Dataset | None:
        rows = [row for shard in shards if (row := self.row(shard, column)) is not None]
        return column_tables(self.store, rows, self._rows_for)[column].open() if rows else None
