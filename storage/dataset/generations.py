"""Generations: the dataset as its users see it.

A generation is a numbered, immutable manifest with a row for each (shard, column) that existed when it was
published: the commit record and its sha256, the data objects, the counts. Rows may be of different column
versions, shard by shard. `generation.json` is written last, put-if-absent: it names the manifest and makes
the generation exist.

    generations/000001/manifest.<attempt>.parquet
    generations/000001/generation.json

It does not know: images that are planned and not yet worked on; `verify` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.manifest import (
    OBJECT_FIELDS,
    GenerationRow,
    manifest_rows,
    row_of,
    write_manifest,
)
from maskmill.storage.dataset.records import CommitRecord, new_attempt
from maskmill.storage.dataset.row_set import RowSet
from maskmill.storage.drivers.lease import check_lease
from maskmill.storage.errors import (
    DamagedObject,
    DatasetError,
    NoSuchThing,
    ObjectNotFound,
    Overtaken,
    Recalled,
    StoreUnavailable,
)
from maskmill.storage.json_text import from_json, load_object, sealed
from maskmill.storage.plan.marks import holding, marked_shards
from maskmill.storage.shards.shards import WrittenObject
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.numbered import highest_by_log

FORMAT_VERSION = 1
FOLDER = "generations"
MAX_RACES = 20
MOST_GENERATIONS = 10**9


@dataclass(frozen=True)
class Generation:
    """A published generation.

    Attributes:
        number: from 1.
        parent: the number before it in its history, None for the first.
        columns: the fingerprint that was asked for, by column.
        settings: what made it, for people.
        models: name or identity, by role.
        totals: counts, by name.
        created_utc: ISO 8601.
        manifest: the Parquet object with its rows.
        store: where it is.
        made_by: the kind of command that published it: "generate", "repair", "forget", ...
        seen: how far each numbered log had come then (numbered.py); empty in generations written before.
    """

    number: int
    parent: int | None
    columns: Mapping[str, str]
    settings: Mapping[str, Any]
    models: Mapping[str, str]
    totals: Mapping[str, float]
    created_utc: str
    manifest: WrittenObject
    store: ObjectStore = field(repr=False)
    made_by: str = "generate"
    seen: Mapping[str, int] = field(default_factory=dict)

    def rows(self) -> tuple[GenerationRow, ...]:
        """Its rows, by shard and column, all in memory. Raises DamagedObject, ObjectNotFound."""
        return manifest_rows(self.store, self.manifest)

    def row_set(self) -> RowSet:
        """The same, to be read a part at a time."""
        return RowSet(self.store, self.manifest)


def publish(
    store: ObjectStore,
    columns: Mapping[str, str],
    *,
    settings: Mapping[str, Any],
    models: Mapping[str, str],
    totals: Mapping[str, float],
    created_utc: str,
) -> Generation:
    """Publishes what is committed of these column versions as the next generation.

    Args:
        store: the dataset.
        columns: fingerprint by column.
        settings, models, totals, created_utc: as Generation has them.

    Returns:
        The new generation, or the latest one when its rows are the same already.

    Raises:
        DatasetError: nothing is committed, or a record was made from another record of its input column.
    """
    facts = {"columns": columns, "settings": settings, "models": models, "totals": totals}

    def make(parent: Generation | None) -> Publication:
        """What is committed now, whatever the latest generation has.

        Raises:
            DatasetError: nothing is, or a record was made from another record of its input column.
        """
        records = {
            (record.shard, column): (version, record)
            for column, fingerprint in columns.items()
            for version in [ColumnVersion(store, column, fingerprint)]
            for record in version.records()
        }
        if not records:
            raise DatasetError(f"{store.root}: nothing is committed of {dict(columns)}; run `generate` first")
        check_inputs(store, {key: record for key, (_, record) in records.items()})
        rows = RowSet.of(store, (row_of(version, record) for version, record in records.values()))
        return Publication(rows, facts)

    return publish_over(store, make, created_utc, made_by="generate")


def publish_rows(
    store: ObjectStore,
    rows: Iterable[GenerationRow],
    facts: Mapping[str, Mapping[str, Any]],
    created_utc: str,
    *,
    made_by: str = "generate",
) -> Generation:
    """Publishes rows, of whatever versions, unless the latest generation has the same ones."""
    wanted = Publication(RowSet.of(store, rows), facts)
    return publish_over(store, lambda parent: wanted, created_utc, made_by=made_by)


@dataclass(frozen=True)
class Publication:
    """What a generation is to be: its rows, and its columns, settings, models and totals as `facts`."""

    rows: RowSet
    facts: Mapping[str, Mapping[str, Any]]


def publish_over(
    store: ObjectStore,
    make: Callable[[Generation | None], Publication],
    created_utc: str,
    *,
    made_by: str,
) -> Generation:
    """Publishes what `make` makes of the latest generation, asked anew if another one comes first.

    Returns:
        The new generation, or the latest one when its rows are the same already.

    Raises:
        LeaseLost: this driver counts as dead.
        Overtaken: rows name records that were superseded since they were read; to be asked again likewise.
        Recalled: rows hold images that were forgotten; to be asked again with the records now in force.
    """
    for _ in range(MAX_RACES):
        parent = latest(store)
        wanted = make(parent)
        rows = wanted.rows.over(parent.manifest if parent is not None else None)
        refuse_forgotten(store, rows)
        if parent is not None and not rows.changes:
            return parent
        _refuse_superseded(store, [row for row in rows.changes.values() if row is not None])
        number = parent.number + 1 if parent else 1
        name = f"{FOLDER}/{number:06d}/manifest.{new_attempt()}.parquet"
        manifest = write_manifest(store, name, rows.tables())
        generation = Generation(
            number,
            parent.number if parent else None,
            **wanted.facts,
            created_utc=created_utc,
            manifest=manifest,
            store=store,
            made_by=made_by,
            seen=highest_by_log(store),
        )
        check_lease(store)
        if store.put_if_absent(generation_name(number), _generation_bytes(generation)):
            refuse_forgotten(store, rows)  # marked since: the next generation is without them
            return generation
        store.delete(name)
    raise StoreUnavailable(f"{store.root}: {MAX_RACES} other generations were published meanwhile; try again")


def refuse_forgotten(store: ObjectStore, rows: RowSet) -> None:
    """Nothing where rows hold no image that the plan marks as forgotten now.

    Raises:
        Recalled: they do; says which.
    """
    marked = marked_shards(store)
    by_shard: dict[int, list[CommitRecord]] = {shard: [] for shard in marked}
    superseded = set[str]()  # their data is gone where `forget` removed it; elsewhere that is damage
    for row in [row for one in rows.of_shards(marked).values() for row in one.values()] if marked else ():
        if (record := _record_of(store, row)) is not None:
            by_shard[row.shard].append(record)
            in_force = ColumnVersion(store, row.column, row.fingerprint).record(row.shard)
            if in_force is not None and in_force.sha256 != record.sha256:
                superseded.add(record.sha256)
    for shard, marks in marked.items():
        for record in holding(store, by_shard[shard], marks, or_gone=superseded):
            raise Recalled(
                f"{store.root}: {record.version} shard {shard} holds images that were forgotten meanwhile "
                f"({', '.join(sorted(marks))}); run the same command again, it publishes without them"
            )


def _refuse_superseded(store: ObjectStore, rows: Collection[GenerationRow]) -> None:
    """Raises Overtaken where rows name another record than the one in force: who read them slept since."""
    by_version: dict[ColumnVersion, list[GenerationRow]] = {}
    for row in rows:
        by_version.setdefault(ColumnVersion(store, row.column, row.fingerprint), []).append(row)
    for version, named in by_version.items():
        newest = version.repairs()
        doubtful = {
            row.shard: row
            for row in named
            if row.shard not in newest or version.record_name(row.shard, newest[row.shard]) != row.record
        }
        for shard, record in version.read_shards(doubtful) if doubtful else ():
            if isinstance(record, CommitRecord) and record.sha256 != doubtful[shard].record_sha256:
                raise Overtaken(
                    f"{store.root}: {version.folder} shard {shard} was given another record meanwhile; "
                    "run the same command again, it publishes that one"
                )


def _record_of(store: ObjectStore, row: GenerationRow) -> CommitRecord | None:
    return ColumnVersion(store, row.column, row.fingerprint).read_record(row.record, row.shard)


def latest(store: ObjectStore) -> Generation | None:
    """The generation of the highest number, None before the first. Raises DamagedObject."""
    numbers = list_generations(store)
    return load_generation(store, numbers[-1]) if numbers else None


def list_generations(store: ObjectStore) -> list[int]:
    """The numbers of all generations, ascending."""
    names = [info.name for info in store.list(f"{FOLDER}/") if info.name.endswith("/generation.json")]
    return sorted(int(name.split("/")[1]) for name in names)


def load_generation(store: ObjectStore, number: int) -> Generation:
    """A generation by its number.

    Raises:
        NoSuchThing: there is no such generation; says which there are.
        DamagedObject: its file cannot be read.
    """
    if not 0 < number < MOST_GENERATIONS:
        raise _none_of(store, number)
    name = generation_name(number)
    try:
        data = store.read(name)
    except ObjectNotFound as exc:
        raise _none_of(store, number) from exc
    try:
        fields = load_object(data)
        if fields.pop("format_version", None) != FORMAT_VERSION:
            raise DamagedObject(f"{store.root}/{name}: of a newer format; update maskmill")
        generation = from_json(Generation, fields, store=store)
    except ValueError as exc:
        raise DamagedObject(f"{store.root}/{name}: not a readable generation ({exc})") from exc
    if generation.number != number:
        raise DamagedObject(f"{store.root}/{name}: says it is generation {generation.number}")
    return generation


def _none_of(store: ObjectStore, number: int) -> NoSuchThing:
    """Of a number: no such generation, or no dataset at all."""
    there = list_generations(store)
    return (
        NoSuchThing(f"{store.root}: no generation {number}; there are {there}") if there else none_yet(store)
    )


def none_yet(store: ObjectStore) -> NoSuchThing:
    """What to tell of a dataset without a generation."""
    return NoSuchThing(
        f"{store.root} holds no generation: is the path right? "
        f"`maskmill generate {store.root} --input IMAGES` makes one"
    )


def generation_name(number: int) -> str:
    """Where a generation's JSON is."""
    return f"{FOLDER}/{number:06d}/generation.json"


def check_inputs(store: ObjectStore, records: Mapping[tuple[int, str], CommitRecord]) -> None:
    """Whether records, by (shard, column), were made from each other. Raises DatasetError."""
    for (shard, column), record in records.items():
        for source, sha256 in record.inputs.items():
            found = records.get((shard, source))
            if found is not None and found.sha256 != sha256:
                name = ColumnVersion(store, column, record.fingerprint).record_name(shard, record.repair)
                raise DatasetError(
                    f"{store.root}: {column} shard {shard} was made from another {source} shard than the one "
                    f"that is committed ({name}); run `maskmill verify --repair`"
                )


def _generation_bytes(generation: Generation) -> bytes:
    fields = {name: getattr(generation, name) for name in generation.__dataclass_fields__ if name != "store"}
    fields["manifest"] = {name: getattr(generation.manifest, name) for name in OBJECT_FIELDS}
    for name in ("columns", "settings", "models", "totals", "seen"):
        fields[name] = dict(fields[name])
    fields["format_version"] = FORMAT_VERSION
    return sealed(fields)
