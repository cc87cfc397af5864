"""New records for a committed shard, from what is stored alone: without some keys, or naming new inputs.

A record of masks names the record of images it was made from. When that one is superseded, by the same
samples or by those left after some were forgotten, what was derived is as good as before: it gets a new
record that names the new one, and new objects only where keys have to go. All columns and versions of the
shard are done, those first that others were made from. Each step is a commit; doing it again finishes it.
Keys that the plan marks as forgotten always go: whoever comes upon a shard that still holds them settles it.

It does not know: how to make samples anew (workers/jobs/repair.py).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from maskmill.storage.dataset.columns import (
    BRINGING,
    ColumnVersion,
    brought_masks,
    list_columns,
    list_versions,
)
from maskmill.storage.dataset.generations import Generation, Publication, latest, publish_over
from maskmill.storage.dataset.manifest import GenerationRow, row_of
from maskmill.storage.dataset.records import CommitRecord, Reject, new_attempt
from maskmill.storage.errors import DamagedObject, ObjectNotFound, Overtaken, StorageError
from maskmill.storage.plan.marks import holding, marked_shards, marks_of
from maskmill.storage.shards.index import read_index
from maskmill.storage.shards.shards import HashingWriter, WrittenObject, read_shard, write_shard
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

MAX_RACES = 20
FORGOTTEN = "forgotten"  # the reason in the images column's record


@dataclass(frozen=True)
class StoredShard:
    """A shard of a column version, as its records have it.

    Attributes:
        version: which.
        record: the one in force.
        stands_for: sha256 of it and of all records whose samples it has.
        next_repair: the number that a record made from it gets: the next one when it was read.
    """

    version: ColumnVersion
    record: CommitRecord
    stands_for: frozenset[str]
    next_repair: int


def stored_shards(
    store: ObjectStore, shard: int, rows: Iterable[GenerationRow] = (), *, lenient: bool = False
) -> list[StoredShard]:
    """A shard in all versions of all columns that have it.

    Args:
        store: the dataset.
        shard: its number.
        rows: of generations: they know of records that can no longer be read.
        lenient: leave out versions none of whose records can be read.

    Raises:
        DamagedObject: none of a version's records can be read.
    """
    found = []
    for column in list_columns(store):
        for version in list_versions(store, column):
            number = version.next_repair(shard)
            history = version.history(shard)
            readable = [record for record in history if isinstance(record, CommitRecord)]
            if readable:
                equal = _stands_for(readable, version, rows)
                found.append(StoredShard(version, readable[-1], equal, number))
            elif history and not lenient:
                raise DamagedObject(
                    f"{store.root}: no record of {version.folder} shard {shard} can be read; "
                    "run `maskmill verify --repair` first"
                )
    return found


def _stands_for(
    readable: list[CommitRecord], version: ColumnVersion, rows: Iterable[GenerationRow]
) -> frozenset[str]:
    *earlier, record = readable
    by_sha256 = {one.sha256: one for one in earlier}
    equal = {one.sha256 for one in earlier if _same_content(one, record)}
    equal |= {
        row.record_sha256
        for row in rows
        if (row.column, row.fingerprint, row.shard) == (version.column, version.fingerprint, record.shard)
        and (row.data.sha256, row.num_read) == (record.data.sha256, record.num_read)
    }
    rewritten: CommitRecord | None = record
    while rewritten is not None and rewritten.rewrites:
        equal.add(rewritten.rewrites)
        rewritten = by_sha256.get(rewritten.rewrites)
    return frozenset({record.sha256, *equal})


def _same_content(one: CommitRecord, other: CommitRecord) -> bool:
    return (one.data.sha256, one.num_read) == (other.data.sha256, other.num_read)


def rewrite_shard(
    store: ObjectStore,
    shard: int,
    *,
    without: Collection[str] = (),
    rows: Iterable[GenerationRow] = (),
    created_utc: str,
) -> list[CommitRecord]:
    """Commits new records where a shard's columns still hold keys of `without`, or name superseded inputs.

    Args:
        store: the dataset.
        shard: its number.
        without: keys that are to be forgotten, beside those that the plan marks.
        rows: see stored_shards.
        created_utc: of new records, ISO 8601.

    Returns:
        The new records.

    Raises:
        DamagedObject: keys are to go, and something of the shard cannot be read. (What is gone holds none.)
        Overtaken: others kept committing records of the shard meanwhile.
    """
    for _ in range(MAX_RACES):
        try:
            return _rewrite_shard(store, shard, without, rows, created_utc)
        except Overtaken as exc:
            overtaken = exc
    raise overtaken


def _rewrite_shard(
    store: ObjectStore,
    shard: int,
    without: Collection[str],
    rows: Iterable[GenerationRow],
    created_utc: str,
) -> list[CommitRecord]:
    pending = stored_shards(store, shard, rows, lenient=not without)
    current = {sha256: one.record.sha256 for one in pending for sha256 in one.stands_for}
    without = frozenset(without) | marks_of(store, shard)
    made = []
    while pending:
        waits_for = {sha256 for one in pending for sha256 in one.stands_for}
        ready = [one for one in pending if not waits_for & set(one.record.inputs.values())]
        assert ready, "columns are not made from each other in a circle"
        for one in ready:
            new = _rewritten(one, current, without, created_utc)
            if new is not None:
                made.append(new)
                current |= dict.fromkeys(one.stands_for, new.sha256)
                current[new.sha256] = new.sha256
        pending = [one for one in pending if one not in ready]
    return made


def still_holding(store: ObjectStore, shards: Collection[int] | None = None) -> dict[int, list[CommitRecord]]:
    """Records in force, of any version, that hold images marked as forgotten, by shard.

    Args:
        store: the dataset.
        shards: only these; None is all.

    Raises:
        DamagedObject: a plan or a shard cannot be read. A record that can't is left to `verify`.
    """
    marks = {s: keys for s, keys in marked_shards(store).items() if shards is None or s in shards}
    by_shard: dict[int, list[CommitRecord]] = {shard: [] for shard in marks}
    if marks:
        for column in list_columns(store):
            for version in list_versions(store, column):
                for shard, record in version.read_shards(version.committed() & marks.keys()):
                    if not isinstance(record, StorageError):
                        by_shard[shard].append(record)
    found = {shard: holding(store, records, marks[shard]) for shard, records in by_shard.items()}
    return {shard: records for shard, records in found.items() if records}


def settle_forgotten(
    store: ObjectStore, *, created_utc: str, shards: Collection[int] | None = None
) -> list[CommitRecord]:
    """Rewrites the shards that still hold images marked as forgotten; the old objects stay for `forget`.

    Args:
        store: the dataset.
        created_utc: of new records, ISO 8601.
        shards: only these; None is all.

    Returns:
        The new records.

    Raises:
        DamagedObject: something of such a shard cannot be read.
    """
    return [
        record
        for shard in still_holding(store, shards)
        for record in rewrite_shard(store, shard, created_utc=created_utc)
    ]


def settle_and_publish(store: ObjectStore, *, created_utc: str) -> bool:
    """What every run begins with: forgotten images leave what is in force, and the latest generation.

    A `forget` that was refused has only marked them, and one that was killed has stopped somewhere. Shards
    that are damaged are left to `verify --repair`, which begins with this too; nothing is published until
    then.

    Args:
        store: the dataset.
        created_utc: of new records and the generation, ISO 8601.

    Returns:
        Whether all of it is settled.
    """
    marked = set(marked_shards(store))
    if not marked:
        return True
    try:
        settle_forgotten(store, created_utc=created_utc, shards=marked)
    except (DamagedObject, ObjectNotFound):
        settled = [_settles(store, shard, created_utc) for shard in sorted(marked)]  # the others, one by one
        if not all(settled):
            return False
    republish(store, marked, made_by="forget", created_utc=created_utc)
    return True


def _settles(store: ObjectStore, shard: int, created_utc: str) -> bool:
    try:
        settle_forgotten(store, created_utc=created_utc, shards=[shard])
    except (DamagedObject, ObjectNotFound) as exc:
        log.warning("shard %d holds images that were forgotten, and cannot be read: %s", shard, exc)
        return False
    return True


def _rewritten(
    stored: StoredShard, current: dict[str, str], without: frozenset[str], created_utc: str
) -> CommitRecord | None:
    """The new record, committed; None if the one in force is right, or its data is gone."""
    version, record = stored.version, stored.record
    inputs = {column: current.get(sha256, sha256) for column, sha256 in record.inputs.items()}
    try:
        gone = _keys_of(version, record) & without if without else frozenset[str]()
    except ObjectNotFound:
        return None  # nothing is left of it; where it is in force, `verify --repair` makes it again
    rejects = _rejects_without(record, gone, without)
    if not gone and inputs == dict(record.inputs) and rejects == record.rejects:
        return None

    # Objects only where images go
    attempt = new_attempt()
    data, index = record.data, record.index
    if gone:
        data = _data_without(version, record, gone, attempt)
        index = _index_without(version, record, gone, attempt)

    new = replace(
        record,
        attempt=attempt,
        data=data,
        index=index,
        rejects=rejects,
        num_written=data.num_samples,
        num_read=data.num_samples + len(rejects),
        inputs=inputs,
        created_utc=created_utc,
        repair=stored.next_repair,
        rewrites=record.sha256,
    )
    made = version.commit(new)
    if made.attempt != attempt:
        raise Overtaken(
            f"{version.store.root}: {version.folder} shard {record.shard} was given another record "
            "meanwhile; run the same command again, it starts from that one"
        )
    return made


def _keys_of(version: ColumnVersion, record: CommitRecord) -> frozenset[str]:
    return frozenset(sample.key for sample in version.read(record))


def _rejects_without(
    record: CommitRecord, gone: frozenset[str], without: frozenset[str]
) -> tuple[Reject, ...]:
    """Images account for every planned key, so what is forgotten is a reject there; others never saw it."""
    kept = [reject for reject in record.rejects if reject.key not in without]
    if record.column != "images":
        return tuple(kept)
    known = gone | {reject.key for reject in record.rejects}
    kept += [forgotten_reject(key) for key in sorted(without & known)]
    same = set(kept) == set(record.rejects)
    return record.rejects if same else tuple(sorted(kept, key=lambda reject: reject.key))


def forgotten_reject(key: str) -> Reject:
    """What the images column's record says of a forgotten image."""
    return Reject(key, FORGOTTEN, "removed on request")


def _data_without(
    version: ColumnVersion, record: CommitRecord, gone: frozenset[str], attempt: str
) -> WrittenObject:
    samples = (sample for sample in read_shard(version.store, record.data) if sample.key not in gone)
    return write_shard(version.store, version.data_name(record.shard, attempt), samples)


def _index_without(
    version: ColumnVersion, record: CommitRecord, gone: frozenset[str], attempt: str
) -> WrittenObject | None:
    if record.index is None:
        return None
    import pyarrow as pa

    rows = read_index(version.store, record.index)
    kept = pa.array([key not in gone for key in rows.column("key").to_pylist()], pa.bool_())
    return _write_rows(version.store, version.index_name(record.shard, attempt), rows.filter(kept))


def _write_rows(store: ObjectStore, name: str, rows: pa.Table) -> WrittenObject:
    import pyarrow.parquet as pq

    with store.open_write(name) as target:
        hashing = HashingWriter(target)
        pq.write_table(rows, hashing, compression="zstd", write_page_checksum=True)
    return WrittenObject(name, hashing.num_bytes, hashing.hexdigest(), rows.num_rows)


def republish(
    store: ObjectStore, shards: Collection[int], *, made_by: str, created_utc: str
) -> Generation | None:
    """Publishes the latest generation with the records in force of `shards`; None if there is none yet.

    Raises:
        DamagedObject: a record cannot be read.
    """
    if latest(store) is None:
        return None

    def make(parent: Generation | None) -> Publication:
        """The rows in force now, over the latest generation."""
        assert parent is not None
        by_shard = sorted(parent.row_set().of_shards(shards).items())
        old = [row for _, rows in by_shard for _, row in sorted(rows.items())]
        new = [_refreshed(store, row) for row in old]
        facts = {
            "columns": parent.columns,
            "settings": parent.settings,
            "models": parent.models,
            "totals": _totals(parent, old, new),
        }
        changes = {(row.shard, row.column): row for row in new}
        return Publication(parent.row_set().changed(changes), facts)

    return publish_over(store, make, created_utc, made_by=made_by)


def _refreshed(store: ObjectStore, row: GenerationRow) -> GenerationRow:
    version = ColumnVersion(store, row.column, row.fingerprint)
    record = version.record(row.shard)
    return row if record is None or record.sha256 == row.record_sha256 else row_of(version, record)


def _totals(
    parent: Generation, olds: Iterable[GenerationRow], news: Iterable[GenerationRow]
) -> dict[str, float]:
    """The parent's totals, changed by what its rows changed in.

    A forgotten image was annotated or rejected before, and is rejected now.
    """
    totals = dict(parent.totals)
    for old, new in zip(olds, news, strict=True):
        written = new.num_written - old.num_written
        masks = (new.index.num_samples if new.index else 0) - (old.index.num_samples if old.index else 0)
        changes = {old.column: written}
        if old.column == "masks":
            changes = {"masks": masks, "annotated": written, "rejected": -written}
        if old.column in BRINGING:
            changes[brought_masks(old.column)] = masks
        for name in changes.keys() & totals:
            totals[name] += changes[name]
    return totals
