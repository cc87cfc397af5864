"""The rows of the next generation: what a run made where it is committed, the generation before elsewhere.

Per shard: every column of the run in its new version if that is committed, else as the parent has it;
columns that the run does not make (imports, reviews, words of a run without them) as the parent has them. A
shard's rows must fit together: a row whose record was made from another record than its neighbour's is
given up, and with it what was made from it; if that would lose a column that the run makes, the shard stays
as the parent has it.

What is committed of a run is carried from the generation before where nothing is new: a commit record never
changes, so a row of the parent whose record is still the newest of its shard stands, by the record's sha256,
and is not read again. A shard with anything new in one of the run's columns is read in all of them: they must
have been made from each other.

It doesn't know: whether what a carried row names is still there (`verify` looks), what a column means, or why
a shard is not done.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from maskmill.storage.dataset.columns import BRINGING, ColumnVersion, brought_masks, making_order
from maskmill.storage.dataset.generations import Generation, check_inputs
from maskmill.storage.dataset.join import read_record
from maskmill.storage.dataset.manifest import GenerationRow, row_of
from maskmill.storage.dataset.records import NOT_ANNOTATED, CommitRecord, Reject, first_rejects
from maskmill.storage.errors import StorageError
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.in_order import in_order

Rows = dict[str, GenerationRow]
THREADS = 16
IMAGES = "images"


@dataclass(frozen=True)
class Merged:
    """Rows of a generation to be.

    Attributes:
        rows: by shard and column.
        old_shards: by column of the run: shards that still have another version than the run's.
        dropped: by column: shards whose row no longer fits what it was made from, and is left out.
    """

    rows: tuple[GenerationRow, ...]
    old_shards: Mapping[str, int]
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Committed:
    """What is committed of a run's columns.

    Attributes:
        rows: of each column, by shard.
        read: the records that the parent has not, by (shard, column).
        models: of each column's first record, by role.
    """

    rows: Mapping[str, tuple[GenerationRow, ...]]
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
    newest = {column: version.newest_names() for column, version in versions.items()}
    known = _known(parent, fingerprints, newest)

    # A shard stands where all that is committed of it is in the parent
    standing = set[int]().union(*newest.values())
    for column, names in newest.items():
        standing -= names.keys() - known[column].keys()

    rows: dict[str, tuple[GenerationRow, ...]] = {}
    read: dict[tuple[int, str], CommitRecord] = {}
    models: dict[str, str] = {}
    for column, version in versions.items():
        found = {shard: row for shard, row in known[column].items() if shard in standing}
        for record in _read(version, newest[column].keys() - found.keys()):
            read[record.shard, column] = record
            found[record.shard] = row_of(version, record)
        rows[column] = tuple(found[shard] for shard in sorted(found))
        if rows[column]:
            first = rows[column][0]
            models |= (read.get((first.shard, column)) or read_record(store, first)).models
    check_inputs(store, read)
    return Committed(rows, read, models)


def _known(
    parent: Generation | None, fingerprints: Mapping[str, str], newest: Mapping[str, Mapping[int, str]]
) -> dict[str, dict[int, GenerationRow]]:
    """The parent's rows of these versions whose records are still the newest, by column and shard."""
    known: dict[str, dict[int, GenerationRow]] = {column: {} for column in fingerprints}
    for row in parent.rows() if parent is not None else ():
        of_run = fingerprints.get(row.column) == row.fingerprint
        if of_run and newest[row.column].get(row.shard) == row.record:
            known[row.column][row.shard] = row
    return known


def _read(version: ColumnVersion, shards: Collection[int]) -> Iterator[CommitRecord]:
    with closing(version.read_shards(shards)) as records:
        for _, record in records:
            if isinstance(record, StorageError):
                raise record
            yield record


def rejected_images(store: ObjectStore, committed: Committed) -> Iterator[Reject]:
    """The rejected images, each once, with the reason of the first column that rejects it.

    Only records that reject something are read. Raises DamagedObject.
    """
    by_shard: dict[int, list[GenerationRow]] = {}
    for rows in committed.rows.values():
        for row in rows:
            if row.num_rejects:
                by_shard.setdefault(row.shard, []).append(row)

    def rejects(rows: list[GenerationRow]) -> Iterator[Reject]:
        """Of one shard, its columns in the order they are made."""
        records = [committed.read.get((row.shard, row.column)) or read_record(store, row) for row in rows]
        yield from first_rejects(records).values()

    with closing(in_order(by_shard.values(), rejects, THREADS)) as found:
        yield from found


def merge_rows(
    store: ObjectStore, made: Mapping[str, Sequence[GenerationRow]], parent: Generation | None
) -> Merged:
    """The rows that a run publishes.

    Args:
        store: the dataset.
        made: by column of the run, in the order they are made: what is committed of its version; rows that
            were made from each other (`generations.check_inputs`).
        parent: the generation before.

    Raises:
        DamagedObject: a record that has to be looked at cannot be read.
    """
    new: defaultdict[int, Rows] = defaultdict(dict)
    for column, rows in made.items():
        for row in rows:
            new[row.shard][column] = row
    old: defaultdict[int, Rows] = defaultdict(dict)
    for row in parent.rows() if parent is not None else ():
        old[row.shard][row.column] = row
    merged: list[GenerationRow] = []
    stale, dropped = Counter[str](), Counter[str]()
    mixed = [shard for shard in sorted(new.keys() & old.keys()) if _is_mixed(new[shard], old[shard])]
    with ThreadPoolExecutor(THREADS) as threads:
        chosen = dict(
            zip(
                mixed,
                threads.map(lambda s: _merge_shard(store, new[s], old[s], set(made)), mixed),
                strict=True,
            )
        )
    for shard in sorted(new.keys() | old.keys()):
        of_run, before = new.get(shard, {}), old.get(shard, {})
        kept = chosen.get(shard) or {**before, **of_run}
        merged += [kept[column] for column in sorted(kept)]
        stale.update(c for c in made if c in kept and kept[c] != of_run.get(c))
        dropped.update(before.keys() - kept.keys())
    return Merged(tuple(merged), dict(stale), dict(dropped))


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


def count_rows(store: ObjectStore, rows: Sequence[GenerationRow]) -> dict[str, float]:
    """A generation's totals: samples by column, masks, and images annotated or rejected.

    Masks that a column brings are told apart (`brought_masks`), unless a shard is from before they had rows.
    An image counts as annotated where its shard has masks and no column rejects it; one that an imported file
    doesn't name is not rejected, and annotated where it has masks beside.
    """
    by_shard: dict[int, Rows] = defaultdict(dict)
    for row in rows:
        by_shard[row.shard][row.column] = row
    totals = Counter[str]()
    for shard in by_shard.values():
        columns = [shard[column] for column in _in_order(shard)]
        plain = only_images_reject(columns)
        records = [] if plain else _rejecting(store, columns)
        unnamed = {
            reject.key
            for record in records
            if record.column == "masks"
            for reject in record.rejects
            if reject.reason == NOT_ANNOTATED
        }
        found = first_rejects(records).values()
        rejects = (
            sum(row.num_rejects for row in columns)
            if plain
            else len({reject.key for reject in found if reject.reason != NOT_ANNOTATED})
        )
        totals.update({row.column: row.num_written for row in columns if row.column != "masks"})
        totals["rejected"] += rejects
        masks = shard.get("masks")
        if masks is not None:
            totals["masks"] += masks.index.num_samples if masks.index is not None else 0
            totals["annotated"] += columns[0].num_read - rejects - len(unnamed)
    return {"annotated": 0, "rejected": 0, "masks": 0, **totals, **_count_brought(rows)}


def _count_brought(rows: Sequence[GenerationRow]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for column in BRINGING:
        indexes = [row.index for row in rows if row.column == column]
        known = [index.num_samples for index in indexes if index is not None]
        if indexes and len(known) == len(indexes):
            counts[brought_masks(column)] = sum(known)
    return counts


def _rejecting(store: ObjectStore, rows: Iterable[GenerationRow]) -> list[CommitRecord]:
    return [read_record(store, row) for row in rows if row.num_rejects]


def only_images_reject(rows: Iterable[GenerationRow]) -> bool:
    """Whether a shard's rows tell alone how many images are rejected: no column after images rejects any."""
    return not any(row.num_rejects for row in rows if row.column != IMAGES)
