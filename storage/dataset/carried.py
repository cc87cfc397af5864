"""What is committed of a run's columns, as rows: carried from the generation before where nothing is new.

A commit record never changes, so a row of the parent whose record is still the newest of its shard stands, by
the record's sha256, and is not read again. A shard with anything new in one of the columns is read in all of
them: they must have been made from each other.

It does not know: whether what a carried row names is still there; `verify` looks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, GenerationRow, check_inputs, row_of
from maskmill.storage.dataset.join import read_record
from maskmill.storage.dataset.records import CommitRecord, Reject, first_rejects
from maskmill.storage.errors import StorageError
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.in_order import in_order

READ_THREADS = 16


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

    with closing(in_order(by_shard.values(), rejects, READ_THREADS)) as found:
        yield from found
