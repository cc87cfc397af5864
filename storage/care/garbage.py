"""What nothing names any more: found, and removed on request.

    data         data and index objects of lost races and killed writers: in no record in force, no generation
    attempt      what workers said they had in hand (attempts/)
    manifest     of generations that lost their race
    model        weights of models that lost theirs, or whose writer was killed before the card
    plan         tables of plans that lost theirs
    driver       heartbeats of drivers that were killed
    claim        what people said that they had open (review/claims/), and drivers in hand (claims/)
    unfinished   multipart uploads on S3, temporary files on a disk
    version      only if asked for: all of a column version that no generation names, its records first

Spared: whatever a generation or a record in force names, all of a shard whose records cannot be read,
anything younger than `min_age_s`, and anything written since the oldest living driver started; whole
versions while any driver lives, who may be about to resume one. Commit records, models, tags and what people
saved are never garbage. Each removal stands alone: a stopped run leaves the rest. One that slept stops before
the next one: its lease is lost, and whoever waited for it goes on (one_writer.py).

Memory: a digest for each named object (about 50 bytes), and what is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b

from maskmill.storage.dataset.columns import ColumnVersion, list_columns, list_versions
from maskmill.storage.dataset.generations import FOLDER as GENERATIONS
from maskmill.storage.dataset.generations import list_generations, load_generation
from maskmill.storage.dataset.manifest import named_objects
from maskmill.storage.dataset.model_versions import FOLDER as MODELS
from maskmill.storage.dataset.model_versions import list_models
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.drivers.claims import FOLDER as CLAIMS
from maskmill.storage.drivers.lease import SLACK_S, check_lease, others
from maskmill.storage.drivers.shard_claims import FOLDER as SHARD_CLAIMS
from maskmill.storage.drivers.store_time import FOLDER as DRIVERS
from maskmill.storage.drivers.store_time import store_clock
from maskmill.storage.plan.digests import DigestTable
from maskmill.storage.plan.plan import FOLDER as PLANS
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.plan.tables import MERGED
from maskmill.storage.stores.base import ObjectInfo, ObjectStore, Unfinished
from maskmill.storage.stores.in_order import in_order

MIN_AGE_S = 86_400.0
REMOVE_THREADS = 16

_WEIGHTS = re.compile(rf"{MODELS}/[^/]+/\d+/weights\.[^/]*")
_MANIFEST = re.compile(rf"{GENERATIONS}/\d+/manifest\.[^/]*")


@dataclass(frozen=True)
class Garbage:
    """An object, or an unfinished write, that nothing names.

    Attributes:
        kind: see the file's header.
        name: of the object.
        size_bytes: that it takes; 0 where the store doesn't say.
        unfinished: the write, where it is one.
    """

    kind: str
    name: str
    size_bytes: int
    unfinished: Unfinished | None = None


def find_garbage(
    store: ObjectStore,
    *,
    own_id: str | None = None,
    min_age_s: float = MIN_AGE_S,
    versions: bool = False,
    clock: Callable[[], float] | None = None,
) -> list[Garbage]:
    """Everything that nothing names; changes nothing.

    Args:
        store: the dataset.
        own_id: the caller's own heartbeat, which spares nothing.
        min_age_s: younger objects are spared.
        versions: also column versions that no generation names: settings that were tried and left, but also
            a first run that was stopped before it published. None without a generation.
        clock: seconds since 1970 at the store; None asks it.

    Raises:
        DamagedObject: a plan or a manifest cannot be read, so nobody knows what it names.
    """
    begun_s = [driver.begun_s - SLACK_S for driver in others(store, own_id=own_id)]
    cutoff_s = min([(clock or store_clock(store))() - min_age_s, *begun_s])
    versions = versions and not begun_s

    # What generations name stays
    kept, published = DigestTable(16, 1), set[str]()
    for number in list_generations(store):
        for name in named_objects(store, load_generation(store, number).manifest):
            kept.put(_digest(name), b"g")
            published.add(name.rsplit("/", 2)[0])

    # Objects of columns, then what lies beside them
    found: list[Garbage] = []
    for column in list_columns(store):
        for version in list_versions(store, column):
            if versions and published and version.folder not in published:
                found += _whole_version(version, cutoff_s)
            else:
                found += _of_version(version, kept, cutoff_s)
    for kind, listed in (
        ("attempt", store.list("attempts/")),
        ("driver", store.list(f"{DRIVERS}/")),
        ("claim", store.list(f"{CLAIMS}/")),
        ("claim", store.list(f"{SHARD_CLAIMS}/")),
        ("manifest", _lost_manifests(store)),
        ("model", _lost_weights(store)),
        ("plan", lost_tables(store)),
    ):
        found += [Garbage(kind, one.name, one.size_bytes) for one in listed if one.modified_s < cutoff_s]

    found += [
        Garbage("unfinished", write.name, write.size_bytes, write)
        for write in store.unfinished()
        if write.started_s < cutoff_s
    ]
    return found


def remove_garbage(
    store: ObjectStore, found: Sequence[Garbage], *, progress: Callable[[int], None] | None = None
) -> None:
    """Removes what `find_garbage` found; what is gone already is no error.

    Raises:
        LeaseLost: this process slept for so long that what it found may be in use again; the rest stays.
    """

    def remove(one: Garbage) -> Iterator[None]:
        """Removes one, while the lease holds; gone already is no error."""
        check_lease(store)
        if one.unfinished is not None:
            store.abandon(one.unfinished)
        else:
            store.delete(one.name)
        yield None

    records = [one for one in found if _is_record(one)]
    done = 0
    for part in (records, [one for one in found if not _is_record(one)]):  # a record never outlives its data
        with closing(in_order(part, remove, REMOVE_THREADS)) as removed:
            for _ in removed:
                done += 1
                if progress is not None:
                    progress(done)


def _is_record(one: Garbage) -> bool:
    return one.kind == "version" and "/commits/" in one.name


def _whole_version(version: ColumnVersion, cutoff_s: float) -> list[Garbage]:
    """Everything, if all of it is old enough; `commits/` sorts first: no record outlives its objects."""
    listed = list(version.store.list(f"{version.folder}/"))
    if any(info.modified_s >= cutoff_s for info in listed):
        return []
    return [Garbage("version", info.name, info.size_bytes) for info in listed]


def _of_version(version: ColumnVersion, kept: DigestTable, cutoff_s: float) -> list[Garbage]:
    """Records are read first: what one names later is younger than any cutoff."""
    unreadable: set[int] = set()
    with closing(version.read_shards(version.committed())) as records:
        for shard, record in records:
            if not isinstance(record, CommitRecord):
                unreadable.add(shard)
                continue
            for written in (record.data, record.index):
                if written is not None:
                    kept.put(_digest(written.name), b"r")
    listed = (info for part in ("data", "index") for info in version.store.list(f"{version.folder}/{part}/"))
    return [
        Garbage("data", info.name, info.size_bytes)
        for info in listed
        if info.modified_s < cutoff_s
        and kept.get(_digest(info.name)) is None
        and _shard(info) not in unreadable
    ]


def _shard(info: ObjectInfo) -> int | None:
    digits = info.name.rpartition("/")[2].partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _lost_manifests(store: ObjectStore) -> Iterator[ObjectInfo]:
    numbers = set(list_generations(store))
    named = {load_generation(store, number).manifest.name for number in numbers}
    for info in store.list(f"{GENERATIONS}/"):
        if _MANIFEST.fullmatch(info.name) and info.name not in named:
            yield info


def _lost_weights(store: ObjectStore) -> Iterator[ObjectInfo]:
    """Weights that no card names."""
    for role in store.folders(f"{MODELS}/"):
        named = {card.weights.name for card in list_models(store, role)}
        for info in store.list(f"{MODELS}/{role}/"):
            if _WEIGHTS.fullmatch(info.name) and info.name not in named:
                yield info


def lost_tables(store: ObjectStore) -> Iterator[ObjectInfo]:
    """Tables in the plans' folder that no plan names."""
    named = {table.written.name for part in load_plans(store).parts for table in part.tables}
    for info in store.list(f"{PLANS}/"):
        if info.name.endswith(".parquet") and not info.name.endswith(MERGED) and info.name not in named:
            yield info


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()
