"""Which committed shards have to be made again, and the number of the record that repairs each.

Looked at is what readers read: of every column version that the latest generation has (or, without one, of
the fullest versions), and of those that the caller means to make, each shard's record in force and its
objects. A shard is damaged where no record of it can be read or the published one is another, an object is
missing or not what the record says, its keys are not those that reached it, or it was made from an input no
longer in force. `deep` reads every byte.

It does not know: shards that were never committed (`generate` makes those), damaged plans.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from maskmill.storage.dataset.columns import ColumnVersion, list_columns, list_versions, making_order
from maskmill.storage.dataset.generations import latest
from maskmill.storage.dataset.join import read_row
from maskmill.storage.dataset.manifest import GenerationRow, row_of
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.errors import StorageError
from maskmill.storage.plan.plan import Plan, load_plans
from maskmill.storage.shards.index import read_index
from maskmill.storage.shards.shards import check_size
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.in_order import in_order
from maskmill.storage.stores.open import is_silence


@dataclass(frozen=True)
class Damage:
    """A shard of a column version that has to be made again.

    Attributes:
        shard, column, fingerprint: which.
        what: "record", "data", "index", "keys" or "inputs".
        detail: what exactly, for a person.
        repair: number of the record that replaces it.
    """

    shard: int
    column: str
    fingerprint: str
    what: str
    detail: str
    repair: int


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        damages: by shard, columns in the order they are made.
        unpublished: shards whose records in force are not those of the latest generation.
    """

    damages: tuple[Damage, ...]
    unpublished: tuple[int, ...]


def find_damage(
    store: ObjectStore,
    *,
    deep: bool = False,
    shards: Collection[int] | None = None,
    also: Mapping[str, str] = {},
    num_threads: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Found:
    """Checks committed shards; changes nothing.

    Args:
        store: the dataset.
        deep: read every byte instead of records and sizes only.
        shards: only these.
        also: column -> fingerprint of versions that are looked at beside those in force: a run whose settings
            the latest generation has not would come upon their damage when it publishes.
        num_threads: shards checked at once.
        progress: called with the number of shards checked so far.

    Raises:
        DamagedObject: the plan or the generation itself cannot be read.
        AccessDenied, StoreUnavailable: an S3 store doesn't let us look.
    """
    plan = load_plans(store)
    rows, versions = _in_force(store)
    wanted = sorted(
        shard for shard in rows if shard < plan.num_shards and (shards is None or shard in shards)
    )

    others = _beyond(store, also, rows)

    def check(shard: int) -> Iterator[tuple[int, list[Damage], bool]]:
        """What is damaged of one shard."""
        looked = _Look(store, plan, shard, rows[shard], versions, deep)
        damages = looked.damages()
        if shard in others:
            beside = _Look(store, plan, shard, others[shard], {**versions, **also}, deep)
            damages += [damage for damage in beside.damages() if damage not in damages]
        yield shard, damages, looked.unpublished

    damages: list[Damage] = []
    unpublished = []
    with closing(in_order(wanted, check, num_threads)) as checked:
        for number, (shard, found, differs) in enumerate(checked, start=1):
            damages += found
            if differs:
                unpublished.append(shard)
            if progress is not None:
                progress(number)
    return Found(tuple(damages), tuple(unpublished))


def _in_force(
    store: ObjectStore,
) -> tuple[dict[int, dict[str, GenerationRow | None]], Mapping[str, str]]:
    """Shard -> column -> its row, None beyond the generation; and the versions beyond it."""
    generation = latest(store)
    by_shard: dict[int, dict[str, GenerationRow | None]] = {}
    for row in generation.rows() if generation else ():
        by_shard.setdefault(row.shard, {})[row.column] = row
    versions = dict(generation.columns) if generation else _fullest_versions(store)
    for column, fingerprint in versions.items():
        for shard in ColumnVersion(store, column, fingerprint).committed():
            by_shard.setdefault(shard, {}).setdefault(column, None)
    return by_shard, versions


def _beyond(
    store: ObjectStore, also: Mapping[str, str], rows: Mapping[int, Mapping[str, GenerationRow | None]]
) -> dict[int, dict[str, GenerationRow | None]]:
    """Shard -> column of `also` -> None, where that version is committed and another one is in force."""
    found: dict[int, dict[str, GenerationRow | None]] = {}
    committed = {column: ColumnVersion(store, column, digits).committed() for column, digits in also.items()}
    for shard, in_force in rows.items():
        if any(
            shard in committed[column]
            and (row := in_force.get(column)) is not None
            and row.fingerprint != digits
            for column, digits in also.items()
        ):
            found[shard] = {column: None for column in also if shard in committed[column]}
    return found


def _fullest_versions(store: ObjectStore) -> dict[str, str]:
    return {
        column: max(list_versions(store, column), key=lambda version: len(version.committed())).fingerprint
        for column in list_columns(store)
    }


class _Look:
    """At one shard."""

    def __init__(
        self,
        store: ObjectStore,
        plan: Plan,
        shard: int,
        rows: Mapping[str, GenerationRow | None],
        versions: Mapping[str, str],
        deep: bool,
    ) -> None:
        self._store, self._plan, self._shard, self._rows, self._deep = store, plan, shard, rows, deep
        self._versions = {
            column: ColumnVersion(store, column, row.fingerprint if row else versions[column])
            for column, row in rows.items()
        }
        self._records: dict[str, CommitRecord] = {}
        self._damages: list[Damage] = []
        self.unpublished = False

    def damages(self) -> list[Damage]:
        """Column after column; what was derived from a damaged column is not checked for its keys."""
        for column in making_order(self._rows):
            self._look_at(column)
        return self._damages

    def _look_at(self, column: str) -> None:
        version, row = self._versions[column], self._rows[column]
        try:
            record = version.record(self._shard)
        except StorageError as exc:
            self._refuse_silence(exc)
            return self._damage(column, "record", str(exc))
        if record is None:
            return self._damage(column, "record", f"{version.record_name(self._shard)} is gone")
        if row is not None and record.sha256 != row.record_sha256:
            name = version.record_name(self._shard, record.repair)
            if (len(name), name) < (len(row.record), row.record):  # an earlier one: the published is gone
                return self._damage(column, "record", f"{row.record} is gone")
            if name == row.record and record.data == row.data:
                return self._damage(column, "record", f"{row.record} is not the one that was published")
            self.unpublished = True
        self._records[column] = record
        problem = self._problem(version, record)
        if problem is not None:
            self._damage(column, *problem)
        return None

    def _problem(self, version: ColumnVersion, record: CommitRecord) -> tuple[str, str] | None:
        try:
            check_size(self._store, record.data)
            keys = self._keys(version, record) if self._deep else None
        except StorageError as exc:
            self._refuse_silence(exc)
            return "data", str(exc)
        if record.index is not None:
            try:
                check_size(self._store, record.index)
                if self._deep:
                    read_index(self._store, record.index)
            except StorageError as exc:
                self._refuse_silence(exc)
                return "index", str(exc)
        stale = self._stale_inputs(record)
        if stale:
            return "inputs", f"made from another record of {', '.join(stale)} than the one in force"
        return self._wrong_keys(record, keys)

    def _keys(self, version: ColumnVersion, record: CommitRecord) -> list[str]:
        return [sample.key for sample in read_row(self._store, row_of(version, record))]

    def _stale_inputs(self, record: CommitRecord) -> list[str]:
        return [
            column
            for column, sha256 in record.inputs.items()
            if column in self._records and self._records[column].sha256 != sha256
        ]

    def _wrong_keys(self, record: CommitRecord, keys: list[str] | None) -> tuple[str, str] | None:
        if record.column == "images":
            reached = set(self._plan.keys_of(self._shard))
        elif "images" in self._records:
            images = self._records["images"]
            reached = set(self._plan.keys_of(self._shard)) - {reject.key for reject in images.rejects}
        else:
            return None
        wanted = sorted(reached - {reject.key for reject in record.rejects})
        if record.num_written != len(wanted) or (keys is not None and keys != wanted):
            return "keys", f"has {record.num_written} samples where {len(wanted)} other ones belong"
        return None

    def _damage(self, column: str, what: str, detail: str) -> None:
        version = self._versions[column]
        repair = version.next_repair(self._shard)
        self._damages.append(Damage(self._shard, column, version.fingerprint, what, detail, repair))

    def _refuse_silence(self, exc: StorageError) -> None:
        """Not answering is no damage."""
        if is_silence(self._store.root, exc):
            raise exc
