"""The ingest plan: which source images are in the dataset, under which keys, in which shards.

Decided once and written put-if-absent, so that two drivers, or a resumed one, cut the same shards. New files
make a further plan on top, with new keys and shards; nothing planned ever changes.

    plan/000001.json                        what the plan says of itself; written last, makes it exist
    plan/000001.<attempt>.parquet           a row per image, in key order, row groups of whole shards
    plan/000001.<attempt>.rejects.parquet   a row per input that is not in the dataset, with the reason
    plan/000001.<attempt>.tars.parquet      a row per tar that was scanned to its end
    plan/000001.<attempt>.resolved.parquet  labels of earlier rejects that no longer hold, where they are many
    plan/000002.<attempt>.forgotten.parquet keys that were forgotten, where they are many
    plan/000256.parts.parquet               copies of the first 256 JSONs, to be read at once

Only the small JSON files are read until images are asked for, and then only a row group at a time.

It does not know: images found bad when they are decoded (those are the records' rejects); a tar rewritten in
place with the same members elsewhere (reading those says SourceChanged).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache

from maskmill.storage.errors import DamagedObject, DatasetError, NoSuchThing, ObjectNotFound
from maskmill.storage.json_text import from_json, load_object, sealed
from maskmill.storage.plan.sources import PlannedImage, source_label
from maskmill.storage.plan.tables import (
    MERGED,
    REJECT_COLUMNS,
    TAR_COLUMNS,
    KnownTar,
    PlanTable,
    RewrittenRows,
    group_images,
    read_merged,
    read_names,
    read_rows,
    write_merged,
)
from maskmill.storage.stores.base import ObjectStore

FORMAT_VERSION = 2  # 1 was never released
FOLDER = "plan"
MAX_SHARD_SIZE = 1_000_000
MERGE_EVERY = 256  # plans: then copies of all of them are written as one object


@dataclass(frozen=True)
class PlanReject:
    """An input that is not in the dataset.

    Attributes:
        source: its address, tar::member inside a tar.
        reason: duplicate, empty_file, missing, unreadable, not_a_file, unsupported or tar_damaged.
        detail: what exactly.
    """

    source: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class PlanPart:
    """One plan file: a run of shards and the rejects met while planning it.

    Attributes:
        number: from 1.
        inputs: as given, absolute.
        limit: the most images that were asked for, None for all.
        shard_size: images in each of its shards but the last.
        first_shard, num_shards: its run of shards.
        first_image_id, num_images: its run of images.
        rows: a row per image; None without any.
        row_group_shards: the first shard of each row group.
        rejects: a row per reject; None without any.
        rejects_by_reason: counts.
        resolved: labels of earlier rejects whose sources are planned here after all, or rejected anew.
        resolved_by_reason: how many of each earlier reason.
        tars: a row per tar scanned to its end; None without any.
        skipped_by_ending: what the listing saw and didn't use.
        forgotten: keys of images, of this or earlier plans, that were removed and stay out.
        resolved_table, forgotten_table: the same, where they are more than a small JSON should list.
        rewritten: tables that stand for those of earlier plans; `load_plans` puts them in their place.
    """

    number: int
    inputs: tuple[str, ...]
    limit: int | None
    shard_size: int
    first_shard: int
    num_shards: int
    first_image_id: int
    num_images: int
    rows: PlanTable | None
    row_group_shards: tuple[int, ...]
    rejects: PlanTable | None
    rejects_by_reason: Mapping[str, int]
    resolved: tuple[str, ...]
    resolved_by_reason: Mapping[str, int]
    tars: PlanTable | None
    skipped_by_ending: Mapping[str, int]
    forgotten: tuple[str, ...] = ()
    rewritten: tuple[RewrittenRows, ...] = ()
    resolved_table: PlanTable | None = None
    forgotten_table: PlanTable | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        assert 1 <= self.shard_size <= MAX_SHARD_SIZE, "a shard holds a few images to many"
        assert self.num_shards == -(-self.num_images // self.shard_size), "images are cut into these shards"
        num_rows = self.rows.written.num_samples if self.rows is not None else 0
        assert num_rows == self.num_images >= 0, "each image has a row"

    @property
    def tables(self) -> tuple[PlanTable, ...]:
        """Its Parquet objects."""
        tables = (self.rows, self.rejects, self.tars, self.resolved_table, self.forgotten_table)
        return tuple(table for table in tables if table is not None)

    @property
    def next_shard(self) -> int:
        """The first shard number after it."""
        return self.first_shard + self.num_shards

    @property
    def next_image_id(self) -> int:
        """The first image id after it."""
        return self.first_image_id + self.num_images


@dataclass(frozen=True)
class Plan:
    """All plans of a dataset as one. Picklable."""

    store: ObjectStore
    parts: tuple[PlanPart, ...] = field(repr=False)

    @property
    def num_shards(self) -> int:
        """Shards are numbered 0 to num_shards - 1."""
        return self.parts[-1].next_shard if self.parts else 0

    @property
    def num_images(self) -> int:
        """Images that shards hold."""
        return sum(part.num_images for part in self.parts)

    @property
    def rejects_by_reason(self) -> dict[str, int]:
        """Inputs that are not in the dataset, by reason."""
        counts = Counter[str]()
        for part in self.parts:
            counts.update(part.rejects_by_reason)
            counts.subtract(part.resolved_by_reason)
        return {reason: count for reason, count in sorted(counts.items()) if count}

    @property
    def num_rejects(self) -> int:
        """Inputs that are not in the dataset."""
        return sum(self.rejects_by_reason.values())

    @property
    def rejects(self) -> tuple[PlanReject, ...]:
        """Inputs that are not in the dataset, in the order they were met. Raises DamagedObject."""
        return tuple(self.iter_rejects())

    def iter_rejects(self) -> Iterator[PlanReject]:
        """The same without holding them all."""
        resolved_by = {  # label -> the last part that says so
            label: index
            for index, part in enumerate(self.parts)
            for label in self._names(part.resolved, part.resolved_table)
        }
        for index, part in enumerate(self.parts):
            for row in read_rows(self.store, part.rejects, REJECT_COLUMNS):
                label = source_label(row["source"], row["member"])
                if resolved_by.get(label, -1) <= index:
                    yield PlanReject(label, row["reason"], row["detail"])

    def iter_tars(self) -> Iterator[KnownTar]:
        """Tars that were scanned to their ends. Raises DamagedObject."""
        for part in self.parts:
            for row in read_rows(self.store, part.tars, TAR_COLUMNS):
                yield KnownTar(**row)

    @cached_property
    def forgotten(self) -> frozenset[str]:
        """Keys of images that were removed and are not to be taken in again. Raises DamagedObject."""
        return frozenset[str]().union(
            *(self._names(part.forgotten, part.forgotten_table) for part in self.parts)
        )

    def forgotten_of(self, shard: int) -> frozenset[str]:
        """Those of them that were planned for a shard. Raises DamagedObject."""
        if not self.forgotten or not 0 <= shard < self.num_shards:
            return frozenset()
        return self.forgotten.intersection(self.keys_of(shard))

    def _names(self, listed: tuple[str, ...], table: PlanTable | None) -> Collection[str]:
        return read_names(self.store, table) if table is not None else listed

    def shard_of(self, key: str) -> int:
        """The shard that an image was planned for. Raises DatasetError for a key that isn't planned."""
        image_id = image_id_of(key)
        place = bisect_right(self._first_image_ids, image_id) if image_id is not None else 0
        if image_id is not None and place > 0:
            part = self.parts[place - 1]
            if part.first_image_id <= image_id < part.next_image_id:
                return part.first_shard + (image_id - part.first_image_id) // part.shard_size
        raise DatasetError(f"{self.store.root}: no image was ever planned under the key {key!r}")

    def num_images_of(self, shard: int) -> int:
        """How many images a shard holds. Raises DatasetError for a shard that isn't planned."""
        part = self._part_of(shard)
        return min(part.shard_size, part.num_images - (shard - part.first_shard) * part.shard_size)

    def first_image_id_of(self, shard: int) -> int:
        """The id of a shard's first image; the others follow it."""
        part = self._part_of(shard)
        return part.first_image_id + (shard - part.first_shard) * part.shard_size

    def keys_of(self, shard: int) -> tuple[str, ...]:
        """The keys of a shard's images, in order, without reading anything."""
        first = self.first_image_id_of(shard)
        return tuple(image_key(first + index) for index in range(self.num_images_of(shard)))

    def images(self, shard: int) -> tuple[PlannedImage, ...]:
        """A shard's images, in key order; reads one row group.

        Raises:
            DatasetError: no such shard.
            DamagedObject: the rows aren't what the plan says.
        """
        part = self._part_of(shard)
        assert part.rows is not None
        group = bisect_right(part.row_group_shards, shard) - 1
        images = tuple(image for image in group_images(self.store, part.rows, group) if image.shard == shard)
        if tuple(image.key for image in images) != self.keys_of(shard):
            raise DamagedObject(
                f"{self.store.root}/{part.rows.written.name}: shard {shard} isn't what the plan says"
            )
        return images

    def iter_sources(self) -> Iterator[tuple[str, str]]:
        """Key and label (tar::member) of every image but forgotten ones, in key order; a row group at a time.

        Raises:
            DamagedObject: a table isn't what its plan says.
        """
        for part in self.parts:
            for row in read_rows(self.store, part.rows, ("key", "source", "member")):
                if row["key"] not in self.forgotten:
                    yield row["key"], source_label(row["source"], row["member"])

    def _part_of(self, shard: int) -> PlanPart:
        if 0 <= shard < self.num_shards:  # of parts that begin alike, all but the last are empty
            return self.parts[bisect_right(self._first_shards, shard) - 1]
        raise DatasetError(
            f"{self.store.root}: shard {shard} is not planned; there are {self.num_shards} shards"
        )

    @cached_property
    def _first_shards(self) -> tuple[int, ...]:
        return tuple(part.first_shard for part in self.parts)

    @cached_property
    def _first_image_ids(self) -> tuple[int, ...]:
        return tuple(part.first_image_id for part in self.parts)


KEY_DIGITS = 9


def image_key(image_id: int) -> str:
    """The key of an image, so that keys sort as their ids do.

    Nine digits; an id that has more of them comes after a letter that says how many: 999999999, a1000000000,
    ..., a9999999999, b10000000000.
    """
    digits = f"{image_id:0{KEY_DIGITS}d}"
    more = len(digits) - KEY_DIGITS
    return f"{chr(ord('a') + more - 1)}{digits}" if more else digits


def image_id_of(key: str) -> int | None:
    """The inverse; None for what is no image's key. Ids begin with 1."""
    digits = key.lstrip("abcdefghijklmnopqrstuvwxyz")
    image_id = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 30 else 0
    return image_id if image_id > 0 and image_key(image_id) == key else None


def planned(store: ObjectStore) -> Plan:
    """All plans of a dataset that is there.

    Raises:
        NoSuchThing: nothing is planned.
        DamagedObject: as `load_plans`.
    """
    plan = load_plans(store)
    if not plan.parts:
        raise NoSuchThing(f"{store.root}: there is no dataset here, nothing is planned; is the path right?")
    return plan


def has_plan(store: ObjectStore) -> bool:
    """Whether anything is planned, read or not: a damaged plan counts."""
    return next(iter(store.list(f"{FOLDER}/")), None) is not None


def identity(store: ObjectStore) -> str:
    """16 hex digits that a dataset keeps wherever it is moved to: of its first plan, which never changes.

    Raises:
        DatasetError: nothing is planned there, or it is there no more.
    """
    try:
        return hashlib.sha256(store.read(part_name(1))).hexdigest()[:16]
    except ObjectNotFound:
        raise DatasetError(f"{store.root}: there is no dataset here; was it moved?") from None


def load_plans(store: ObjectStore, *, copies: bool = True) -> Plan:
    """All plans of a dataset; an empty one if there are none. Reads their JSON only.

    Args:
        store: the dataset.
        copies: read merged copies where there are some; `verify` reads the plans themselves.

    Raises:
        DamagedObject: a plan cannot be read, one is missing in between, or they don't follow each other.
    """
    parts: list[PlanPart] = []
    listed = list(store.list(f"{FOLDER}/"))
    etags = {info.name: info.etag for info in listed if info.name.endswith(".json")}
    merged = max((info.name for info in listed if info.name.endswith(MERGED)), default=None)
    for number, name in enumerate(etags, start=1):
        if name != part_name(number):
            raise DamagedObject(
                f"{store.root}/{name}: expected {part_name(number)}; a plan was removed or added"
            )
        part = _parse_part(store, name, etags[name], merged if copies else None)
        follows = (parts[-1].next_shard, parts[-1].next_image_id) if parts else (0, 1)
        if (part.number, part.first_shard, part.first_image_id) != (number, *follows):
            raise DamagedObject(f"{store.root}/{name}: does not follow the plan before it")
        parts.append(part)
    for one in [one for part in parts for one in part.rewritten]:
        if not 1 <= one.number <= len(parts):
            raise DamagedObject(f"{store.root}/{FOLDER}: rows of a plan {one.number} that isn't there")
        earlier = parts[one.number - 1]
        parts[one.number - 1] = replace(earlier, rows=one.rows, row_group_shards=one.row_group_shards)
    return Plan(store, tuple(parts))


def write_part(store: ObjectStore, part: PlanPart) -> bool:
    """Makes a plan exist, put-if-absent; the copies of all before it where there are hundreds.

    Returns:
        Whether this one is the plan of its number.
    """
    won = store.put_if_absent(part_name(part.number), part_bytes(part))
    if won and part.number % MERGE_EVERY == 0:
        write_merged(store, [part_name(number) for number in range(1, part.number + 1)])
    return won


def part_name(number: int) -> str:
    """Where a plan's JSON is."""
    return f"{FOLDER}/{number:06d}.json"


def part_bytes(part: PlanPart) -> bytes:
    """A plan's JSON."""
    return sealed(asdict(part))


@lru_cache(maxsize=1024)
def _parse_part(store: ObjectStore, name: str, etag: str, merged: str | None) -> PlanPart:
    """A plan's JSON; kept while its etag is the same, since every commit looks for new ones."""
    copy = read_merged(store, merged).get((name, etag)) if merged is not None else None
    try:
        fields = load_object(store.read(name) if copy is None else copy)
        version = fields.get("format_version")
        if version != FORMAT_VERSION:
            raise DamagedObject(f"{store.root}/{name}: format {version}; this version reads {FORMAT_VERSION}")
        fields.pop("listed_tars", None)  # once written, always empty
        return from_json(PlanPart, fields)
    except ValueError as exc:
        raise DamagedObject(f"{store.root}/{name}: not a readable plan ({exc})") from exc
