"""What `verify` looks at beside the shards: plans, generations, models, tags, the marks of forgotten images.

Each problem is a sentence that names the object and the cure. Nothing is changed.

It does not know: the shards' own columns (verify.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from maskmill.storage.care.rewrite import still_holding
from maskmill.storage.care.save_check import save_problems
from maskmill.storage.dataset.columns import ColumnVersion, list_columns, list_versions
from maskmill.storage.dataset.generations import Generation, latest, list_generations, load_generation
from maskmill.storage.dataset.model_versions import FOLDER as MODELS
from maskmill.storage.dataset.model_versions import list_models, promotions
from maskmill.storage.dataset.tags import FOLDER as TAGS
from maskmill.storage.dataset.tags import tag_history
from maskmill.storage.drivers.lease import others
from maskmill.storage.errors import (
    DamagedObject,
    ObjectNotFound,
    StorageError,
)
from maskmill.storage.plan.marks import Marks, forget_command, marked_shards
from maskmill.storage.plan.plan import Plan
from maskmill.storage.shards.shards import WrittenObject, check_object, check_size, read_shard
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.numbered import lost_records
from maskmill.storage.stores.open import is_silence

RESTORE = "put it back from a backup or an older version of the bucket"
SMALL_BYTES = 64 << 20  # read whole even by a check that is not deep

Check = Callable[[WrittenObject], None]


def record_problems(store: ObjectStore, plan: Plan, *, deep: bool) -> Iterator[str]:
    """What is gone or damaged of everything that is no shard's.

    Raises:
        AccessDenied, StoreUnavailable: an S3 store doesn't let us look.
    """

    def check(written: WrittenObject) -> None:
        """One object: its bytes where it is small or all are asked for, else its size."""
        (check_object if deep or written.size_bytes <= SMALL_BYTES else check_size)(store, written)

    newest, problems = _generations(store, check)
    yield from problems
    seen = newest.seen if newest is not None else {}
    yield from lost_records(store, seen, at_rest=not others(store))
    for part in plan.parts:
        for table in part.tables:
            yield from _told(store, partial(check, table.written))
    yield from _models(store, check)
    for name in store.folders(f"{TAGS}/"):
        yield from _told(store, partial(tag_history, store, name))
    yield from save_problems(store, plan, newest_readable(store), deep=deep)


def _generations(store: ObjectStore, check: Check) -> tuple[Generation | None, list[str]]:
    """The newest generation that can be read, and what is wrong with any of them."""
    newest, problems = None, []
    for number in list_generations(store):
        try:
            generation = load_generation(store, number)
            newest = generation
            check(generation.manifest)
        except StorageError as exc:
            problems.append(_sentence(store, exc))
    return newest, problems


def _models(store: ObjectStore, check: Check) -> Iterator[str]:
    for role in store.folders(f"{MODELS}/"):
        yield from _told(store, partial(promotions, store, role))
        try:
            cards = list_models(store, role)
        except StorageError as exc:
            yield _sentence(store, exc)
            continue
        for card in cards:
            yield from _told(store, partial(check, card.weights))


def _told(store: ObjectStore, look: Callable[[], object]) -> list[str]:
    try:
        look()
    except StorageError as exc:
        return [_sentence(store, exc)]
    return []


def _sentence(store: ObjectStore, exc: StorageError) -> str:
    if is_silence(store.root, exc):
        raise exc  # not answering is no damage
    return f"{exc}; {RESTORE}"


def forgotten_problems(store: ObjectStore, *, deep: bool) -> Iterator[str]:
    """Where images that are marked as forgotten are still, in records in force or, `deep`, in loose objects.

    Raises:
        DamagedObject: a plan or a shard that has to be read is damaged.
        AccessDenied, StoreUnavailable: an S3 store doesn't let us look.
    """
    marks = marked_shards(store)
    for shard, records in still_holding(store).items():
        for record in records:
            yield (
                f"shard {shard}: {record.version} holds images that were forgotten; run "
                f"{forget_command(store, marks[shard])}"
            )
    for shard, keys in marks.items() if deep else ():
        yield from _loose(store, shard, keys)


def _loose(store: ObjectStore, shard: int, marks: Marks) -> Iterator[str]:
    """Tars of a shard that no record in force names: of older generations, lost races and killed writers."""
    for column in list_columns(store):
        for version in list_versions(store, column):
            for name in _unnamed(store, version, shard):
                if _has(store, name, marks):
                    yield (
                        f"{store.root}/{name} is in no record and holds images that were forgotten; run "
                        f"{forget_command(store, marks)}"
                    )


def _unnamed(store: ObjectStore, version: ColumnVersion, shard: int) -> list[str]:
    try:
        record = version.record(shard)
    except DamagedObject:
        return []  # nobody knows what it names; the shard is told of as damaged
    named = record.data.name if record is not None else ""
    listed = store.list(f"{version.folder}/data/{shard:06d}.")
    return [info.name for info in listed if info.name != named]


def _has(store: ObjectStore, name: str, marks: Marks) -> bool:
    """Whether a tar of unknown length and checksum has one of these keys, as far as it can be read."""
    try:
        size_bytes = store.stat(name).size_bytes
        samples = read_shard(store, WrittenObject(name, size_bytes, "", 0))
        return any(sample.key in marks for sample in samples)
    except (DamagedObject, ObjectNotFound):
        return False


def newest_readable(store: ObjectStore) -> Generation | None:
    """The newest generation whose records and manifest can be read; `record_problems` tells of the others."""
    try:
        generation = latest(store)
        if generation is not None:
            _readable(generation)
        return generation
    except (DamagedObject, ObjectNotFound):
        pass
    for number in reversed(list_generations(store)):
        try:
            generation = load_generation(store, number)
            _readable(generation)
            return generation
        except (DamagedObject, ObjectNotFound):
            continue
    return None


def _readable(generation: Generation) -> None:
    """Reads its manifest once. Raises DamagedObject, ObjectNotFound."""
    for _ in generation.row_set().tables(()):
        pass
