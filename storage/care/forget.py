"""Removes images, and all that came from them, from a dataset.

In this order, so that a stopped run leaves nothing that the same command does not finish:

    1. a plan that marks the keys forgotten: they are never taken in again, whatever the settings; it names
       new tables without the captions that came with them. From now on commits and generations that hold
       them are refused, so whoever works on the dataset now or starts later leaves them out
    2. a look for others at work: they may still hold the bytes, so the rest waits for them
    3. new records and objects without them, in every version of every column (rewrite.py)
    4. a generation that names the new records
    5. what people saved of these images is removed, and every other data object of those shards: of earlier
       records, lost races and killed writers, so older generations can no longer read these shards, and say
       why; and the tables with the captions. All of it as it was before 2: who begins after that writes
       nothing of these images, and has objects in hand that no record names yet

What stays: in the plan where the image lay and its sha256 (to know it again); and the input itself, which is
not ours. A bucket that keeps old versions keeps these objects too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from maskmill.storage.care.garbage import lost_tables
from maskmill.storage.care.rewrite import StoredShard, republish, rewrite_shard, stored_shards
from maskmill.storage.dataset.columns import ColumnVersion, list_columns, list_versions
from maskmill.storage.dataset.generations import list_generations, load_generation
from maskmill.storage.dataset.records import CommitRecord, new_attempt
from maskmill.storage.dataset.saves import FOLDER as SAVES
from maskmill.storage.drivers.claims import FOLDER as CLAIMS
from maskmill.storage.drivers.lease import check_lease, others
from maskmill.storage.drivers.one_writer import writing
from maskmill.storage.drivers.store_time import steady_time
from maskmill.storage.errors import DatasetError, InputError, ObjectNotFound, StoreUnavailable
from maskmill.storage.plan.marks import forget_command
from maskmill.storage.plan.plan import FOLDER, Plan, PlanPart, image_key, load_plans, write_part
from maskmill.storage.plan.tables import (
    IMAGE_COLUMNS,
    RewrittenRows,
    RowWriter,
    image_schema,
    read_rows,
    write_names,
)
from maskmill.storage.stores.base import ObjectStore, Unfinished

MAX_RACES = 20
PEOPLE = (SAVES, CLAIMS)
"""Folders with a folder for each picture: what people made of it, and who has it open."""


@dataclass(frozen=True, kw_only=True)
class ForgetPlan:
    """What forgetting would do, or did.

    Attributes:
        keys: to forget, sorted.
        sources: where each was taken from, in the order of `keys`; these files are left alone.
        shards: that hold them.
        versions: column/fingerprint of those that hold these shards.
        rewritten_bytes: of their data objects.
        generations: that have these shards; all but the one to be published lose them.
        done: whether nothing of it is left to do.
    """

    keys: tuple[str, ...]
    sources: tuple[str, ...]
    shards: tuple[int, ...]
    versions: tuple[str, ...]
    rewritten_bytes: int
    generations: tuple[int, ...]
    done: bool


@dataclass(frozen=True, kw_only=True)
class ForgetReport:
    """What forgetting did.

    Attributes:
        keys: forgotten.
        num_records: new commit records.
        num_removed: objects removed, unfinished writes included.
        generation: that was published, or has been already; None if the dataset has none.
    """

    keys: tuple[str, ...]
    num_records: int
    num_removed: int
    generation: int | None


def plan_forget(store: ObjectStore, keys: Collection[str]) -> ForgetPlan:
    """Says what `forget` would do; changes nothing.

    Raises:
        InputError: a key was never planned, or none is given.
    """
    plan = load_plans(store)
    wanted, shards = _located(store, plan, keys)

    held = [one for shard in shards for one in stored_shards(store, shard)]
    marked = set(wanted) <= plan.forgotten
    marked = marked and not _captioned(plan, wanted)
    left = marked and any(True for _ in chain(_of_people(store, wanted), _leftovers(store, shards)))

    return ForgetPlan(
        keys=wanted,
        sources=tuple(
            next(image.label for image in plan.images(plan.shard_of(key)) if image.key == key)
            for key in wanted
        ),
        shards=shards,
        versions=tuple(sorted({one.version.folder for one in held})),
        rewritten_bytes=sum(one.record.data.size_bytes for one in held),
        generations=tuple(
            number
            for number in list_generations(store)
            if load_generation(store, number).row_set().of_shards(shards)
        ),
        done=marked and not left and not any(_holds(one, set(wanted)) for one in held),
    )


def forget(
    store: ObjectStore,
    keys: Collection[str],
    *,
    created_utc: str,
    clock: Callable[[], float] = steady_time,
) -> ForgetReport:
    """Removes images from every column, publishes, and removes what held them. Safe to repeat.

    Args:
        store: the dataset.
        keys: of images, as planned.
        created_utc: of the new records and generation, ISO 8601.
        clock: seconds since 1970, of the heartbeat meanwhile.

    Raises:
        InputError: a key was never planned.
        DatasetError: another driver is at work; the keys are marked, and the same call finishes later.
        WriterBusy: likewise, another writer.
        DamagedObject, ObjectNotFound: a shard cannot be read though it is there; `verify --repair` comes
        first.
    """
    wanted, shards = _located(store, load_plans(store), keys)
    _mark(store, wanted)
    with writing(store, "forget", clock=clock) as own_id:
        before = _stored(store, shards)
        _refuse_company(store, own_id, wanted)
        return _remove(store, wanted, shards, before, created_utc)


def _refuse_company(store: ObjectStore, own_id: str, keys: Collection[str]) -> None:
    """Raises DatasetError while another driver is at work, whose workers may hold the images' bytes."""
    running = others(store, own_id=own_id)
    if running:
        raise DatasetError(
            f"{store.root}: {running[0].owner} on {running[0].host}, process {running[0].pid}, works on this "
            "dataset and may hold these images. They are marked: nothing that is committed or published from "
            "now on has them. To remove what is stored, wait for it to end (a killed one counts for two "
            f"minutes) and run again: {forget_command(store, keys)}"
        )


def _remove(
    store: ObjectStore,
    wanted: tuple[str, ...],
    shards: Collection[int],
    before: Collection[str],
    created_utc: str,
) -> ForgetReport:
    made = [
        record
        for shard in shards
        for record in rewrite_shard(store, shard, without=set(wanted), created_utc=created_utc)
    ]
    generation = republish(store, set(shards), made_by="forget", created_utc=created_utc)
    removed = 0
    leftovers = [left for left in _leftovers(store, shards) if _called(left) in before]
    for left in [*_of_people(store, wanted), *leftovers]:
        check_lease(store)
        store.abandon(left) if isinstance(left, Unfinished) else store.delete(left)
        removed += 1
    number = generation.number if generation else None
    return ForgetReport(keys=wanted, num_records=len(made), num_removed=removed, generation=number)


def _holds(stored: StoredShard, keys: Collection[str]) -> bool:
    try:
        return any(sample.key in keys for sample in stored.version.read(stored.record))
    except ObjectNotFound:  # nothing is left of it
        return False


def _located(
    store: ObjectStore, plan: Plan, keys: Collection[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The keys in full and their shards; a number stands for its key."""
    if not keys:
        raise InputError("no key given: name the images to forget")
    numbers = {key: int(key) for key in keys if key.isascii() and key.isdigit() and len(key) < 30}
    wanted = sorted({image_key(numbers[key]) if key in numbers else key for key in keys})
    try:
        shards = {plan.shard_of(key) for key in wanted}
    except DatasetError as exc:
        raise InputError(f"{exc}; keys are the file names in the tars, such as 000000001") from exc
    return tuple(wanted), tuple(sorted(shards))


def _mark(store: ObjectStore, keys: Sequence[str]) -> None:
    """Writes a plan without images that names the keys as forgotten and drops their captions, unless done."""
    for _ in range(MAX_RACES):
        plan = load_plans(store)
        new = tuple(key for key in keys if key not in plan.forgotten)
        captioned = _captioned(plan, keys)
        if not new and not captioned:
            return

        # A plan without images of its own
        last = plan.parts[-1]
        forgotten, table = write_names(store, f"{FOLDER}/{last.number + 1:06d}", "forgotten", new)
        rewritten = tuple(_without_captions(store, part, last.number + 1, set(keys)) for part in captioned)
        part = PlanPart(
            number=last.number + 1,
            inputs=(),
            limit=None,
            shard_size=last.shard_size,
            first_shard=plan.num_shards,
            num_shards=0,
            first_image_id=last.next_image_id,
            num_images=0,
            rows=None,
            row_group_shards=(),
            rejects=None,
            rejects_by_reason={},
            resolved=(),
            resolved_by_reason={},
            tars=None,
            skipped_by_ending={},
            forgotten=forgotten,
            forgotten_table=table,
            rewritten=rewritten,
        )

        # Another plan came first: once more
        if write_part(store, part):
            return
        for one in (*(one.rows for one in rewritten), *part.tables):
            store.delete(one.written.name)
    raise StoreUnavailable(f"{store.root}: {MAX_RACES} other plans were written meanwhile; try again later")


def _captioned(plan: Plan, keys: Collection[str]) -> list[PlanPart]:
    """The plans that hold captions of these images."""
    images = [
        image
        for shard in {plan.shard_of(key) for key in keys}
        for image in plan.images(shard)
        if image.key in keys
    ]
    shards = {image.shard for image in images if image.caption is not None}
    return [
        part for part in plan.parts if any(part.first_shard <= shard < part.next_shard for shard in shards)
    ]


def _without_captions(
    store: ObjectStore, part: PlanPart, number: int, keys: Collection[str]
) -> RewrittenRows:
    name = f"{FOLDER}/{number:06d}.{new_attempt()}.parquet"
    with RowWriter(store, name, image_schema()) as table:
        for row in read_rows(store, part.rows, IMAGE_COLUMNS):
            if row["key"] in keys:
                row["caption"] = None
            table.add(row, cut=(row["image_id"] - part.first_image_id) % part.shard_size == 0)
    assert table.written is not None
    return RewrittenRows(part.number, table.written, tuple(table.group_shards))


def _of_people(store: ObjectStore, keys: Collection[str]) -> Iterator[str]:
    """What people made of the images, and who has them open."""
    for key in keys:
        yield from (info.name for folder in PEOPLE for info in store.list(f"{folder}/{key}/"))


def _leftovers(store: ObjectStore, shards: Collection[int]) -> Iterator[str | Unfinished]:
    """What may still hold the images, though no record in force names it.

    Objects of their shards, unfinished writes of any shard beside them, tables that no plan names.
    """
    for shard in shards:
        for version in _versions(store):
            record = version.record(shard)
            kept = _names(record) if record is not None else set()
            yield from (left for left in _beside(store, version, shard) if left not in kept)
    yield from (info.name for info in lost_tables(store))


def _stored(store: ObjectStore, shards: Collection[int]) -> set[str]:
    """All that `_leftovers` may come to find of what is there now, as `_called` has it."""
    found = {info.name for info in lost_tables(store)}
    for version in _versions(store):
        for shard in shards:
            found |= {_called(one) for one in _beside(store, version, shard)}
    return found


def _beside(store: ObjectStore, version: ColumnVersion, shard: int) -> Iterator[str | Unfinished]:
    """A shard's objects in a column version, and the version's unfinished writes."""
    for folder in ("data", "index"):
        prefix = f"{version.folder}/{folder}/"
        yield from (info.name for info in store.list(f"{prefix}{shard:06d}."))
        yield from store.unfinished(prefix)


def _versions(store: ObjectStore) -> Iterator[ColumnVersion]:
    for column in list_columns(store):
        yield from list_versions(store, column)


def _called(left: str | Unfinished) -> str:
    """What an object or an unfinished write is known by, however far it has come."""
    return left if isinstance(left, str) else f"{left.name} {left.upload_id}"


def _names(record: CommitRecord) -> set[str]:
    return {record.data.name} | ({record.index.name} if record.index else set())
