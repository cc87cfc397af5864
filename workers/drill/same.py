"""The same job undisturbed, and what differs from it, key by key."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from maskmill.storage.care.rewrite import FORGOTTEN
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.generations import latest, publish
from maskmill.storage.dataset.join import read_record, read_row
from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.errors import StorageError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import Plan, load_plans
from maskmill.storage.plan.sources import read_source
from maskmill.storage.shards.shards import Sample
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.drill.stages import POISON, Builder, drill_spec
from maskmill.workers.foreign.images.codec import DecodeError, decode_image
from maskmill.workers.run.spec import MASKS, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard

MAX_NAMED = 20
REJECTED, DUPLICATE = "rejected: ", "duplicate"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What a dataset lacks or has beyond another, in keys.

    Attributes:
        lost: neither annotated nor rejected here.
        duplicated: more than once in a column.
        different: other bytes, another reason, or unknown there.
        problems: the first of them, named.
    """

    lost: int = 0
    duplicated: int = 0
    different: int = 0
    problems: tuple[str, ...] = ()


def work_undisturbed(root: str, parts: Sequence[str], shard_size: int) -> None:
    """Plans the parts one after another and works every shard in this process, poison left out.

    Args:
        root: of a new dataset.
        parts: addresses of inputs, in the order in which they came.
        shard_size: images in a shard.
    """
    spec, store = drill_spec(root), open_store(root)
    for i in range(len(parts)):
        make_plan(store, parts[: i + 1], shard_size=shard_size)
    work_in_peace(spec, dict.fromkeys(range(load_plans(store).num_shards), shard_size))
    publish(store, spec.fingerprints, settings={}, models={}, totals={}, created_utc=now_utc())


def work_in_peace(spec: RunSpec, shards: Mapping[int, int]) -> dict[int, str]:
    """Works shards in this process, poison left out; see `maskmill.workers.jobs.repair.Work`."""
    stages = Builder()(spec)
    plan = load_plans(stages.store)
    for shard in shards:
        skip = dict.fromkeys(_poison_keys(plan, shard), MASKS)
        run_shard(stages, ShardTask(shard=shard, attempt=new_attempt(), skip_keys=skip))
    return {}


def compare(store: ObjectStore, undisturbed: ObjectStore, *, forgotten: Set[str] = frozenset()) -> Difference:
    """What is lost, double or different in `store`'s latest generation and plan.

    Args:
        store: the dataset.
        undisturbed: the same job, by `work_undisturbed`.
        forgotten: keys that must not be there any more.
    """
    # Every sample of both, by column and key; other columns, an import's, are looked at by verify
    damaged: list[str] = []
    found, duplicated = _contents(store, damaged)
    wanted, _ = _contents(undisturbed, [])
    columns = {column for column, _ in wanted}
    gone = f"{REJECTED}{FORGOTTEN}"
    found = {place: value for place, value in found.items() if place[0] in columns and value != gone}
    wanted = {place: value for place, value in wanted.items() if place[1] not in forgotten}
    lost = {place for place in wanted if place not in found}
    different = {place for place in found if place in wanted and found[place] != wanted[place]}
    unknown = {place for place in found if place not in wanted}

    # What is wrong, in words
    problems = [
        *damaged,
        *(f"{column} of {key} is lost" for column, key in sorted(lost)),
        *(f"{column} of {key} is there {n + 1} times" for (column, key), n in sorted(duplicated.items())),
        *(
            f"{column} of {key}: {found[column, key]}, undisturbed {wanted[column, key]}"
            for column, key in sorted(different)
        ),
        *(f"{column} of {key} should not be there" for column, key in sorted(unknown)),
    ]
    rejects = _plan_rejects(store) ^ _plan_rejects(undisturbed)
    problems += [f"only one of both plans rejects {source} ({reason})" for source, reason in sorted(rejects)]

    return Difference(
        lost=len({key for _, key in lost}),
        duplicated=len({key for _, key in duplicated}),
        different=len({key for _, key in different | unknown}) + len(rejects),
        problems=tuple(problems[:MAX_NAMED]),
    )


def _contents(
    store: ObjectStore, damaged: list[str]
) -> tuple[Mapping[tuple[str, str], str], Counter[tuple[str, str]]]:
    """Digest or reject's reason by column and key, and how often too often a key is there.

    What cannot be read is not there; `damaged` gets why.
    """
    found: dict[tuple[str, str], str] = {}
    again = Counter[tuple[str, str]]()
    generation = latest(store)
    for row in generation.rows() if generation is not None else ():
        try:
            entries = [(sample.key, _digest(sample)) for sample in read_row(store, row)]
            rejects = read_record(store, row).rejects
        except StorageError as exc:
            damaged.append(str(exc))
            continue
        for key, value in [*entries, *((reject.key, f"{REJECTED}{reject.reason}") for reject in rejects)]:
            again[row.column, key] += (row.column, key) in found
            found[row.column, key] = value
    return found, +again


def _digest(sample: Sample) -> str:
    sha256 = hashlib.sha256()
    for ending, data in sorted(sample.files.items()):
        sha256.update(f"{ending} {len(data)} ".encode() + data)
    return sha256.hexdigest()[:16]


def _plan_rejects(store: ObjectStore) -> set[tuple[str, str]]:
    """Of an image that was forgotten, others of the same bytes are no duplicates any more."""
    plan = load_plans(store)
    same = {FORGOTTEN: DUPLICATE}
    return {(reject.source, same.get(reject.reason, reject.reason)) for reject in plan.rejects}


def _poison_keys(plan: Plan, shard: int) -> list[str]:
    keys = []
    for image in plan.images(shard):
        try:
            pixels_HWC = decode_image(read_source(image))
        except (DecodeError, StorageError):
            continue
        if np.abs(np.median(pixels_HWC, axis=(0, 1)) - np.array(POISON)).max() < 20:
            keys.append(image.key)
    return keys
