"""Column versions: which shards exist, decided by commit records.

A column version is one fingerprint's output, `masks/5f0c9a1e77b2d310/`. A worker writes data under its
attempt's own names, then offers a commit record by put-if-absent: the first one makes the shard exist, and
later ones get it back and drop their own objects. Readers take names from records, never from a listing of
data; a record accounts for every key it read: written + rejected = read.

    images/<fingerprint>/data/000000.<attempt>.tar
    images/<fingerprint>/index/000000.<attempt>.parquet
    images/<fingerprint>/commits/000000.json              a repair adds 000000.r1.json, and so on

It does not know: what a record says (records.py), and what the settings behind a fingerprint mean.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import compress, count, islice

from maskmill.storage.dataset.records import CommitRecord, parse_record, record_bytes
from maskmill.storage.drivers.lease import check_lease
from maskmill.storage.errors import (
    DamagedObject,
    DatasetError,
    LeaseLost,
    ObjectNotFound,
    Recalled,
    StorageError,
)
from maskmill.storage.plan.marks import held_keys, marks_of
from maskmill.storage.shards.shards import Sample, WrittenObject, check_size, read_shard
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.in_order import in_order

READ_THREADS = 16  # records are small: reading many of them is waiting for answers
RECORDS_PER_UNIT = 32
PART_BITS, PART_MASK, LARGE = 12, 0xFFF, 255  # of Repairs

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_RECORD_NAME = re.compile(r"(\d{6,})(?:\.r(\d+))?\.json")


class Repairs(MutableMapping[int, int]):
    """Shard -> the number of its newest record, a byte a shard: a million of them take a megabyte."""

    def __init__(self, found: Repairs | None = None) -> None:
        self._parts: dict[int, bytearray] = {}
        self._large: dict[int, int] = {}  # numbers that a byte has no room for
        if found is not None:
            self._parts = {number: bytearray(part) for number, part in found._parts.items()}
            self._large = dict(found._large)
        self._num_shards = len(found) if found else 0

    def __getitem__(self, shard: int) -> int:
        part = self._parts.get(shard >> PART_BITS)
        held = part[shard & PART_MASK] if part is not None else 0
        if not held:
            raise KeyError(shard)
        return held - 1 if held < LARGE else self._large[shard]

    def __setitem__(self, shard: int, number: int) -> None:
        part = self._parts.get(shard >> PART_BITS)
        if part is None:
            part = self._parts[shard >> PART_BITS] = bytearray(1 << PART_BITS)
        self._num_shards += not part[shard & PART_MASK]
        part[shard & PART_MASK] = min(number + 1, LARGE)
        if number + 1 >= LARGE:
            self._large[shard] = number

    def __delitem__(self, shard: int) -> None:
        if shard not in self:
            raise KeyError(shard)
        self._parts[shard >> PART_BITS][shard & PART_MASK] = 0
        self._num_shards -= 1

    def __contains__(self, shard: object) -> bool:
        assert isinstance(shard, int)
        part = self._parts.get(shard >> PART_BITS)
        return part is not None and part[shard & PART_MASK] > 0

    def __iter__(self) -> Iterator[int]:
        for number, part in sorted(self._parts.items()):
            yield from compress(range(number << PART_BITS, number + 1 << PART_BITS), part)

    def __len__(self) -> int:
        return self._num_shards


@dataclass(frozen=True)
class ColumnVersion:
    """One fingerprint's output of a column, in a store."""

    store: ObjectStore
    column: str
    fingerprint: str

    @property
    def folder(self) -> str:
        """Where it is: column/fingerprint."""
        return f"{self.column}/{self.fingerprint}"

    def data_name(self, shard: int, attempt: str) -> str:
        """Where an attempt writes its tar."""
        return f"{self.folder}/data/{shard:06d}.{attempt}.tar"

    def index_name(self, shard: int, attempt: str) -> str:
        """Where an attempt writes its Parquet rows."""
        return f"{self.folder}/index/{shard:06d}.{attempt}.parquet"

    def record_name(self, shard: int, repair: int = 0) -> str:
        """Where the shard's commit record is."""
        return f"{self.folder}/commits/{shard:06d}{f'.r{repair}' if repair else ''}.json"

    def committed(self) -> set[int]:
        """The shards that exist, from the names of their records."""
        return set(self.repairs())

    def record(self, shard: int) -> CommitRecord | None:
        """The shard's record in force: the newest that can be read; None if it isn't committed.

        Raises:
            DamagedObject: there are records, and none of them can be read.
        """
        newest, damage = None, None
        for repair in count():
            try:
                found = self.read_record(self.record_name(shard, repair), shard)
            except DamagedObject as exc:
                damage = exc
                continue
            if found is None and repair:
                break  # the first may be lost and its repair there; repairs have no gaps
            newest = found or newest
        if newest is None and damage is not None:
            raise damage
        return newest

    def history(self, shard: int) -> list[CommitRecord | DamagedObject]:
        """All records of a shard, the first one first, or what keeps one from being read.

        Raises:
            StorageError: the store cannot be asked.
        """
        found: list[CommitRecord | DamagedObject] = []
        for repair in count():
            try:
                record = self.read_record(self.record_name(shard, repair), shard)
            except DamagedObject as exc:
                found.append(exc)
                continue
            if record is not None:
                found.append(record)
            elif repair:
                return found
        raise AssertionError

    def next_repair(self, shard: int) -> int:
        """The number that a new record of the shard gets: 0 if it has none."""
        number = 1
        while self._is_there(self.record_name(shard, number)):
            number += 1
        return number if number > 1 or self._is_there(self.record_name(shard)) else 0

    def records(self, num_threads: int = READ_THREADS) -> Iterator[CommitRecord]:
        """The record in force of each committed shard, by number; a few units in memory at a time.

        Raises:
            DamagedObject: none of a shard's records can be read.
        """
        repairs = self.repairs()
        with closing(self._read_all(sorted(repairs.items()), num_threads)) as found:
            for _, record in found:
                if isinstance(record, StorageError):
                    raise record
                yield record

    def read_shards(
        self,
        shards: Collection[int],
        num_threads: int = READ_THREADS,
        *,
        repairs: Mapping[int, int] | None = None,
    ) -> Generator[tuple[int, CommitRecord | StorageError]]:
        """The record in force of each of these shards, by number, or what keeps it from being read.

        Args:
            shards: their numbers.
            num_threads: records read at once.
            repairs: as `repairs` found them, if the caller has asked; a long listing.
        """
        if repairs is None:
            repairs = self.repairs() if shards else Repairs()
        yield from self._read_all([(shard, repairs.get(shard, 0)) for shard in sorted(shards)], num_threads)

    def _read_all(
        self, wanted: Sequence[tuple[int, int]], num_threads: int
    ) -> Generator[tuple[int, CommitRecord | StorageError]]:
        listed = iter(wanted)
        units = iter(lambda: list(islice(listed, RECORDS_PER_UNIT)), [])
        return in_order(units, self._read_unit, num_threads)

    def _read_unit(self, wanted: list[tuple[int, int]]) -> Iterator[tuple[int, CommitRecord | StorageError]]:
        for shard, highest in wanted:
            yield shard, self._newest(shard, highest)

    def _newest(self, shard: int, highest: int) -> CommitRecord | StorageError:
        damage: StorageError | None = None
        for repair in range(highest, -1, -1):
            try:
                found = self.read_record(self.record_name(shard, repair), shard)
            except DamagedObject as exc:
                damage = damage or exc
                continue
            if found is not None:
                return found
        name = f"{self.store.root}/{self.record_name(shard, highest)}"
        return damage or DatasetError(f"{name}: listed, but not there")

    def read_record(self, name: str, shard: int) -> CommitRecord | None:
        """A record by its object's name; None if absent.

        Raises:
            DamagedObject: it cannot be read, or is of another version or shard.
        """
        try:
            data = self.store.read(name)
        except ObjectNotFound:
            return None
        try:
            record = parse_record(data)
        except DamagedObject as exc:
            raise DamagedObject(f"{self.store.root}/{name}: {exc}") from exc
        if (record.version, record.shard) != (self.folder, shard):
            raise DamagedObject(
                f"{self.store.root}/{name}: is the record of {record.version} shard {record.shard}"
            )
        vars(record)["sha256"] = hashlib.sha256(data).hexdigest()  # of the bytes that are there
        return record

    def commit(self, record: CommitRecord) -> CommitRecord:
        """Makes the shard exist as `record` says, unless it exists: then the winner's record comes back.

        A loser's own data objects (named by its attempt) are removed; what it derived from them has to be
        redone from the winner's.

        The plan's forgotten marks are read before and after: who marks first finds this driver's record or is
        seen here. Of two that miss each other by a pause, the one that pauses sees the other.

        Raises:
            DatasetError: the record is of another column version.
            DamagedObject, ObjectNotFound: a data object isn't there in full.
            LeaseLost: this driver counts as dead; its objects are removed.
            Recalled: it holds forgotten images; its objects are removed, or, marked only now, it is in force
                until the shard is rewritten.
        """
        if record.version != self.folder:
            raise DatasetError(f"a record of {record.version} cannot be committed to {self.folder}")
        written = [found for found in (record.data, record.index) if found is not None]
        for found in written:
            check_size(self.store, found)

        # May this driver still write this?
        try:
            check_lease(self.store)
            if held := self._held(record):
                raise Recalled(
                    f"{self.folder} shard {record.shard}: {', '.join(sorted(held))} were forgotten"
                )
        except (LeaseLost, Recalled):
            self._drop(record, written)
            raise

        # The first record wins
        name = self.record_name(record.shard, record.repair)
        if self.store.put_if_absent(name, record_bytes(record)):
            self._look_again(name, record, written)
            return record
        winner = self.read_record(name, record.shard)
        if winner is None:
            raise DatasetError(
                f"{self.store.root}/{name}: was there and is gone; something else removes records"
            )
        if winner.attempt != record.attempt:
            self._drop(record, written)
        return winner

    def _look_again(self, name: str, record: CommitRecord, written: Sequence[WrittenObject]) -> None:
        """After the write: were images forgotten since the first look? Raises Recalled."""
        marks = marks_of(self.store, record.shard)
        if not marks:
            return
        try:
            for found in written:
                check_size(self.store, found)
            held = held_keys(self.store, record, marks)
        except ObjectNotFound as exc:  # `forget` took them for a lost race's, since no record named them yet
            self.store.delete(name)
            self._drop(record, written)
            raise Recalled(f"{self.store.root}/{name}: its objects were removed by `forget`") from exc
        if held:
            raise Recalled(f"{self.store.root}/{name}: holds {', '.join(sorted(held))}, forgotten meanwhile")

    def _held(self, record: CommitRecord) -> frozenset[str]:
        marks = marks_of(self.store, record.shard)
        return held_keys(self.store, record, marks) if marks else marks

    def _drop(self, record: CommitRecord, written: Iterable[WrittenObject]) -> None:
        """Removes what this attempt wrote; a rewritten record may name another one's."""
        for found in written:
            if f".{record.attempt}." in found.name:
                self.store.delete(found.name)

    def read(self, record: CommitRecord) -> Iterator[Sample]:
        """The shard's samples, in order, checked as by shards.read_shard, whose errors it raises."""
        return read_shard(self.store, record.data)

    def _is_there(self, name: str) -> bool:
        try:
            self.store.stat(name)
        except ObjectNotFound:
            return False
        return True

    def repairs(self) -> Repairs:
        """The highest record number of each committed shard, from the names alone."""
        repairs = Repairs()
        prefix = f"{self.folder}/commits/"
        for found in self.store.list(prefix):
            match = _RECORD_NAME.fullmatch(found.name[len(prefix) :])
            if match:
                shard, number = int(match[1]), int(match[2] or 0)
                if shard not in repairs or number > repairs[shard]:
                    repairs[shard] = number
        return repairs


def list_versions(store: ObjectStore, column: str) -> list[ColumnVersion]:
    """The versions of a column, by fingerprint."""
    found = store.folders(f"{column}/")
    return [ColumnVersion(store, column, name) for name in found if _FINGERPRINT.fullmatch(name)]


OTHERS = frozenset({"claims", "drivers", "generations", "locks", "models", "plan", "sets", "tags"})
"""A dataset's folders that are no column, whatever the names in them look like: a tag may be 16 digits."""


def list_columns(store: ObjectStore) -> list[str]:
    """The columns that have a version, by name: every folder of folders named by a fingerprint."""
    return [name for name in store.folders() if name not in OTHERS and list_versions(store, name)]


BRINGING = ("labels",)
"""Columns that bring masks beside those of `masks`: the rows of their index are these masks."""


def brought_masks(column: str) -> str:
    """What the masks that a column brings are called, as a table and among a generation's totals."""
    return f"{column}_masks"


def making_order(columns: Iterable[str]) -> list[str]:
    """Columns as they are made: images, embeddings, candidates, masks, then those made from them, by name."""
    first = ("images", "embeddings", "candidates", "masks")
    return sorted(columns, key=lambda name: (first.index(name) if name in first else len(first), name))
