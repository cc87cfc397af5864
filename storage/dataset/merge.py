"""The rows of the next generation: what a run made where it is committed, the generation before elsewhere.

Per shard: every column of the run in its new version if that is committed, else as the parent has it;
columns that the run does not make (imports, reviews, words of a run without them) as the parent has them. A
shard's rows must fit together: a row whose record was made from another record than its neighbour's is
given up, and with it what was made from it; if that would lose a column that the run makes, the shard stays
as the parent has it.

What is committed of a run is carried from the generation before where nothing is new: a commit record never
changes, so a row of the parent whose record is still the newest of its shard stands, by the record's sha256,
and is not read again. A shard with anything new in one of the run's columns is read in all of them: they must
have been made from each other. So are rejects: a row has them by reason, and records are read only where two
columns may reject the same image.

It doesn't know: whether what a carried row names is still there (`verify` looks), what a column means, or why
a shard is not done.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from maskmill.storage.dataset.columns import (
    BRINGING,
    ColumnVersion,
    Repairs,
    brought_masks,
    making_order,
)
from maskmill.storage.dataset.generations import Generation, check_inputs
from maskmill.storage.dataset.join import read_record
from maskmill.storage.dataset.manifest import GenerationRow, row_of
from maskmill.storage.dataset.records import NOT_ANNOTATED, CommitRecord, Reject, first_rejects
from maskmill.storage.dataset.row_set import Key, Rows, RowSet
from maskmill.storage.errors import StorageError
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.in_order import in_order

THREADS = 16
IMAGES = "images"


@dataclass(frozen=True)
class Merged:
    """Rows of a generation to be.

    Attributes:
        rows: the parent's, with what changes.
        dropped: by column: shards whose row no longer fits what it was made from, and is left out.
    """

    rows: RowSet
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Committed:
    """What is committed of a run's columns.

    Attributes:
        num_shards: how many, by column.
        in_parent: how many shards the generation before has of each column, in whatever version.
        fresh: rows of the shards that have anything new, by column.
        rows: all rows of the run's versions that are in force.
        read: the records that were read, by (shard, column).
        models: of each column's first record, by role.
    """

    num_shards: Mapping[str, int]
    in_parent: Mapping[str, int]
    fresh: Mapping[str, Sequence[GenerationRow]]
    rows: RowSet
    read: Mapping[tuple[int, str], CommitRecord]
    models: Mapping[str, str]


def committed_rows(
    store: ObjectStore, fingerprints: Mapping[str, str], parent: Generation | None
) -> Committed:
    """The rows in force of column versions.

    Args:
        store: the dataset.
        fingerprints: by column, in the order they are made.
        parent: the latest generation.

    Raises:
        DatasetError: a record was made from another one than that of its input column.
        DamagedObject: a record that the parent has not cannot be read, or its first one.
    """
    versions = {column: ColumnVersion(store, column, digits) for column, digits in fingerprints.items()}
    newest = {column: version.repairs() for column, version in versions.items()}
    new, in_parent = _new_shards(parent, versions, newest)

    # A shard with anything new is read in all of the run's columns
    fresh: dict[str, list[GenerationRow]] = {}
    read: dict[tuple[int, str], CommitRecord] = {}
    for column, version in versions.items():
        wanted = {shard: newest[column][shard] for shard in new if shard in newest[column]}
        records = list(_read(version, wanted))
        read |= {(record.shard, column): record for record in records}
        fresh[column] = [row_of(version, record) for record in records]
    check_inputs(store, read)

    rows = RowSet(store, parent.manifest if parent is not None else None).changed(
        {(row.shard, row.column): row for found in fresh.values() for row in found}
    )
    models: dict[str, str] = {}
    for column in versions:
        if newest[column]:
            first = min(newest[column])
            models |= (
                read.get((first, column)) or read_record(store, rows.of_shards([first])[first][column])
            ).models
    return Committed(
        {column: len(shards) for column, shards in newest.items()}, in_parent, fresh, rows, read, models
    )


def _new_shards(
    parent: Generation | None,
    versions: Mapping[str, ColumnVersion],
    newest: Mapping[str, Repairs],
) -> tuple[set[int], Counter[str]]:
    """The shards that have a record which is not in the parent; the parent's shards by column."""
    left = {column: Repairs(shards) for column, shards in newest.items()}
    in_parent = Counter[str]()
    scanned = parent.row_set().scan("shard", "column", "fingerprint", "record") if parent is not None else ()
    for shard, column, digits, record in scanned:
        in_parent[column] += 1
        version = versions.get(column)
        if version is None or version.fingerprint != digits or shard not in left[column]:
            continue
        if version.record_name(shard, left[column][shard]) == record:
            del left[column][shard]
    return set[int]().union(*left.values()), in_parent


def _read(version: ColumnVersion, shards: Mapping[int, int]) -> Iterator[CommitRecord]:
    with closing(version.read_shards(shards, repairs=shards)) as records:
        for _, record in records:
            if isinstance(record, StorageError):
                raise record
            yield record


def count_rejects(store: ObjectStore, committed: Committed, fingerprints: Mapping[str, str]) -> Counter[str]:
    """Rejected images by reason, each once, with the reason of the first column that rejects it.

    Args:
        store: the dataset.
        committed: what a run has made.
        fingerprints: its columns.

    Raises:
        DamagedObject: a record that has to be read cannot be.
    """
    of_run, order = set(fingerprints.items()), list(fingerprints)
    counts, unclear = Counter[str](), set[int]()
    fields = ("shard", "column", "fingerprint", "num_rejects", "reasons")
    for shard, found in groupby(committed.rows.scan(*fields), key=itemgetter(0)):
        rejecting = {
            column: reasons
            for _, column, digits, rejects, reasons in found
            if rejects and (column, digits) in of_run
        }
        if _told_by_rows(rejecting):
            for reasons in rejecting.values():
                counts.update(json.loads(reasons or "{}"))
        else:
            unclear.add(shard)

    def rejects_of(rows: list[GenerationRow]) -> Iterator[Reject]:
        """Of one shard, its columns in the order they are made."""
        records = [committed.read.get((row.shard, row.column)) or read_record(store, row) for row in rows]
        yield from first_rejects(records).values()

    shards = (
        sorted(
            (row for row in rows.values() if row.num_rejects and (row.column, row.fingerprint) in of_run),
            key=lambda row: order.index(row.column),
        )
        for _, rows in committed.rows.each_shard(unclear)
    )
    with closing(in_order(shards, rejects_of, THREADS)) as read:
        counts.update(reject.reason for reject in read)
    return counts


def _told_by_rows(rejecting: Mapping[str, str | None]) -> bool:
    """Whether the reasons in rows tell how many images a shard rejects, without its records.

    What images reject reaches no other column; what two others reject may be the same image.
    """
    return None not in rejecting.values() and len(rejecting.keys() - {IMAGES}) <= 1


def merge_rows(
    store: ObjectStore, made: Mapping[str, Sequence[GenerationRow]], parent: Generation | None
) -> Merged:
    """The rows that a run publishes.

    Args:
        store: the dataset.
        made: by column of the run, in the order they are made: what is committed of its version and may be
            new; rows that were made from each other (`generations.check_inputs`).
        parent: the generation before.

    Raises:
        DamagedObject: a record that has to be looked at cannot be read.
    """
    new: defaultdict[int, Rows] = defaultdict(dict)
    for column, rows in made.items():
        for row in rows:
            new[row.shard][column] = row
    parents = parent.row_set() if parent is not None else RowSet(store)
    old = parents.of_shards(new.keys())

    # Shards that would have rows of both that the other has not
    mixed = [shard for shard in sorted(new.keys() & old.keys()) if _is_mixed(new[shard], old[shard])]
    with ThreadPoolExecutor(THREADS) as threads:
        merged = threads.map(lambda s: _merge_shard(store, new[s], old[s], set(made)), mixed)
        chosen = dict(zip(mixed, merged, strict=True))

    # What each shard changes
    changes: dict[Key, GenerationRow | None] = {}
    dropped = Counter[str]()
    for shard, of_run in sorted(new.items()):
        before = old.get(shard, {})
        kept = chosen.get(shard) or {**before, **of_run}
        for column in sorted({*before, *kept}):
            if kept.get(column) != before.get(column):
                changes[shard, column] = kept.get(column)
        dropped.update(before.keys() - kept.keys())
    return Merged(parents.changed(changes), dict(dropped))


def _is_mixed(new: Rows, old: Rows) -> bool:
    """Whether a shard would have rows of both that the other has not."""
    return {**old, **new} not in (old, new)


def _merge_shard(store: ObjectStore, new: Rows, old: Rows, made: set[str]) -> Rows:
    rows = {**old, **new}
    fitting = _fitting(store, rows, new)
    lost = (old.keys() & made) - fitting.keys()
    return old if lost else fitting


def _fitting(store: ObjectStore, rows: Rows, new: Rows) -> Rows:
    """The rows less the old ones that were made from another record than the one beside them."""
    kept = dict(rows)
    for column in _in_order(rows.keys() - new.keys()):
        inputs = read_record(store, rows[column]).inputs
        if any(
            source in rows and (source not in kept or kept[source].record_sha256 != sha256)
            for source, sha256 in inputs.items()
        ):
            del kept[column]
    return kept


def _in_order(columns: Iterable[str]) -> list[str]:
    return making_order(columns)


def count_rows(store: ObjectStore, rows: RowSet) -> dict[str, float]:
    """A generation's totals: samples by column, masks, and images annotated or rejected.

    Masks that a column brings are told apart (`brought_masks`), unless a shard is from before they had rows.
    An image counts as annotated where its shard has masks and no column rejects it; one that an imported file
    doesn't name is not rejected, and annotated where it has masks beside.

    Raises:
        DamagedObject: a manifest, or a record that has to be read, cannot be.
    """
    totals, unclear = Counter[str](), set[int]()
    brought: dict[str, int | None] = {}
    fields = ("shard", "column", "num_read", "num_written", "num_rejects", "index_num_samples")
    for shard, found in groupby(rows.scan(*fields), key=itemgetter(0)):
        columns = {column: numbers for _, column, *numbers in found}
        for column, (_, num_written, num_rejects, num_masks) in columns.items():
            totals["masks" if column == "masks" else column] += (
                (num_masks or 0) if column == "masks" else num_written
            )
            if column in BRINGING:
                known = brought.get(column, 0)
                brought[column] = None if known is None or num_masks is None else known + num_masks
            if column != IMAGES and num_rejects:
                unclear.add(shard)  # what a column after images rejects is counted below
        if shard not in unclear:
            num_read = columns[making_order(columns)[0]][0]
            num_rejects = sum(numbers[2] for numbers in columns.values())
            totals["rejected"] += num_rejects
            totals["annotated"] += num_read - num_rejects if "masks" in columns else 0
    for _, of_shard in rows.each_shard(unclear):
        totals.update(_count_shard(store, of_shard))
    told = {brought_masks(column): count for column, count in brought.items() if count is not None}
    return {"annotated": 0, "rejected": 0, "masks": 0, **totals, **told}


def _count_shard(store: ObjectStore, rows: Rows) -> dict[str, int]:
    """Images annotated and rejected in a shard of which a column after images rejects some."""
    columns = [rows[column] for column in making_order(rows)]
    rejecting = {row.column: row.reasons for row in columns if row.num_rejects}
    if _told_by_rows(rejecting):
        counts = {column: Counter[str](json.loads(text or "{}")) for column, text in rejecting.items()}
        num_unnamed = counts.get("masks", Counter[str]())[NOT_ANNOTATED]
        num_rejects = sum(found.total() - found[NOT_ANNOTATED] for found in counts.values())
    else:
        records = [read_record(store, row) for row in columns if row.num_rejects]
        masks = next((record for record in records if record.column == "masks"), None)
        num_unnamed = _num_unnamed(masks.rejects if masks is not None else ())
        found = first_rejects(records)
        num_rejects = len(found) - _num_unnamed(found.values())
    annotated = columns[0].num_read - num_rejects - num_unnamed if "masks" in rows else 0
    return {"rejected": num_rejects, "annotated": annotated}


def _num_unnamed(rejects: Iterable[Reject]) -> int:
    return sum(reject.reason == NOT_ANNOTATED for reject in rejects)
