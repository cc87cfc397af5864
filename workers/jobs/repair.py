"""Repair: makes damaged shards again and publishes a generation that names the new records.

    find what is damaged (storage/care/damage.py)
      -> images first, from the sources; what was derived from equal images only gets new records
      -> then other columns, from what they read, by the run whose settings made them
      -> look again, until nothing is damaged or nothing more helps
      -> publish

Each new record is the next number beside the damaged one (`000000.r1.json`), so nothing is overwritten, and
a repair that was stopped is finished by the same call: what it has made is no longer damaged.

Who does the work is the caller's: the pool of a cluster, or `in_process` for a few shards and for tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from maskmill.storage.care.damage import Damage, Found, find_damage
from maskmill.storage.care.rewrite import republish, rewrite_shard
from maskmill.storage.dataset.generations import latest
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.errors import DamagedObject, ObjectNotFound, StorageError
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.run.spec import IMAGES, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.registry import column_names

MAX_ROUNDS = 8
MAX_TRIES = 2  # of one column's shard

Work = Callable[[RunSpec, Mapping[int, int]], Mapping[int, str]]
"""Works the shards (shard -> images in it) of a run; gives those given up, with the reason."""


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What repair did.

    Attributes:
        found: damages met, those included that came to light on the way.
        repaired: how many of them were cured.
        left: those that were not, and why, for people.
        generation: the number of the newest one.
        published: whether it was published now.
    """

    found: int
    repaired: int
    left: tuple[str, ...]
    generation: int | None
    published: bool


def repair(
    store: ObjectStore,
    specs: Sequence[RunSpec],
    work: Work,
    *,
    deep: bool,
    created_utc: str,
    found: Found | None = None,
    also: Mapping[str, str] = {},
) -> RepairReport:
    """Makes damaged shards again, as far as `specs` can, and publishes.

    Args:
        store: the dataset.
        specs: runs whose columns may be made again, the preferred one first.
        work: does it.
        deep: whether damage is looked for in every byte.
        created_utc: of the generation, ISO 8601.
        found: what `find_damage` found before, to spare the first look.
        also: versions looked at beside those in force, as `find_damage` has them.

    Raises:
        StorageError: the store failed, or the plan or the generation itself is damaged.
    """
    found = find_damage(store, deep=deep, also=also) if found is None else found
    before = latest(store)
    rows = before.rows() if before is not None else ()

    # Rounds of making again, until nothing is damaged or nothing more helps
    touched = {*found.unpublished, *(damage.shard for damage in found.damages)}
    met: set[tuple[int, str, str]] = set()
    tries: dict[tuple[int, str, str], int] = defaultdict(int)
    reasons: dict[tuple[int, str, str], str] = {}
    for _ in range(MAX_ROUNDS):
        met |= {_place(damage) for damage in found.damages}
        todo = [damage for damage in found.damages if tries[_place(damage)] < MAX_TRIES]
        todo = [damage for damage in todo if damage.column == IMAGES] or todo
        if not todo:
            break
        for damage in todo:
            tries[_place(damage)] += 1
        reasons |= _make_again(store, specs, work, todo)
        for shard in sorted({damage.shard for damage in todo}):
            with suppress(DamagedObject, ObjectNotFound):  # damaged too, so made again next
                rewrite_shard(store, shard, rows=_rows_of(rows, shard), created_utc=created_utc)
        found = find_damage(store, deep=deep, shards=touched, also=also)

    # What is left, in words; what is sound is published
    left = [
        f"shard {damage.shard}: {damage.column}: {reasons.get(_place(damage), damage.detail)}"
        for damage in found.damages
    ]
    sound = touched - {damage.shard for damage in found.damages}
    after = republish(store, sound, made_by="repair", created_utc=created_utc)
    return RepairReport(
        found=len(met),
        repaired=len(met - {_place(damage) for damage in found.damages}),
        left=tuple(left),
        generation=after.number if after is not None else None,
        published=after is not None and before is not None and after.number != before.number,
    )


def _make_again(
    store: ObjectStore, specs: Sequence[RunSpec], work: Work, damages: Collection[Damage]
) -> dict[tuple[int, str, str], str]:
    """Has each damage's column made by a run that makes it; gives those that were not, with the reason."""
    plan = load_plans(store)
    reasons = {
        _place(damage): f"{damage.detail}; no settings at hand make {damage.column} {damage.fingerprint}: "
        + _other_cure(damage)
        for damage in damages
    }

    left = list(damages)
    for spec in specs:
        mine = [damage for damage in left if spec.fingerprints.get(damage.column) == damage.fingerprint]
        if not mine:
            continue
        left = [damage for damage in left if damage not in mine]

        # What this run makes again, as repairs of their numbers
        repairs: dict[int, dict[str, int]] = defaultdict(dict)
        for damage in mine:
            repairs[damage.shard][damage.column] = damage.repair
            del reasons[_place(damage)]

        # Only the models of these columns are needed
        idle = tuple(set(spec.fingerprints) - {damage.column for damage in mine})
        failed = work(
            replace(spec, repairs=dict(repairs), idle=idle),
            {shard: plan.num_images_of(shard) for shard in sorted(repairs)},
        )
        for damage in mine:
            if damage.shard in failed:
                reasons[_place(damage)] = failed[damage.shard]
    return reasons


def _other_cure(damage: Damage) -> str:
    """What to do about a column that no run at hand makes."""
    if damage.column in column_names():
        return "give the --recipe, --config or --set that it was made with"
    return "it was imported: import its file again, as another column (--column NAME)"


def in_process(build: Callable[[RunSpec], Stages]) -> Work:
    """Works shards one after the other in this process, with the stages that `build` makes."""

    def work(spec: RunSpec, shards: Mapping[int, int]) -> dict[int, str]:
        """See `Work`."""
        stages, failed = build(spec), dict[int, str]()
        for shard in shards:
            try:
                run_shard(stages, ShardTask(shard=shard, attempt=new_attempt()))
            except StorageError as exc:
                failed[shard] = str(exc)
        return failed

    return work


def _rows_of(rows: Sequence[GenerationRow], shard: int) -> list[GenerationRow]:
    return [row for row in rows if row.shard == shard]


def _place(damage: Damage) -> tuple[int, str, str]:
    return damage.shard, damage.column, damage.fingerprint
