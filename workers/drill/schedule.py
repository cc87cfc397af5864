"""Which faults a drill injects, and in which order: all from the seed.

    crashes    what dies, is refused or damaged: workers, nodes, drivers, writes, pictures, objects
    upsets     what sleeps, goes back in time, is lost around it, says something else, or runs beside it

What it doesn't know: when. The conductor lets one happen as the work goes on; which worker meets it is up to
the moment.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from maskmill.pipeline.checks import check_choice
from maskmill.workers.drill import disk, proxy
from maskmill.workers.drill.upsets import names

WORKER_KILL, NODE_KILL, DRIVER_KILL, SECOND_DRIVER = (
    "worker_kill",
    "node_kill",
    "driver_kill",
    "second_driver",
)
POISON_IMAGE, DAMAGED_INPUT, DAMAGED_OBJECT = "poison_image", "damaged_input", "damaged_object"
KILLS = frozenset({WORKER_KILL, NODE_KILL, DRIVER_KILL, SECOND_DRIVER})

_ANYWHERE = {
    WORKER_KILL: 0.16,
    NODE_KILL: 0.023,
    DRIVER_KILL: 0.025,
    SECOND_DRIVER: 0.02,
    POISON_IMAGE: 0.02,
    DAMAGED_INPUT: 0.10,
    DAMAGED_OBJECT: 0.05,
}
_LOCAL = {disk.REFUSED_WRITE: 0.30, disk.TORN_WRITE: 0.10, disk.DIES_AT_COMMIT: 0.08, disk.FULL_DISK: 0.025}
_S3 = {
    proxy.HTTP_500: 0.13,
    proxy.HTTP_503: 0.12,
    proxy.SLOW: 0.06,
    proxy.CUT: 0.13,
    proxy.TORN_UPLOAD: 0.10,
    disk.FULL_DISK: 0.025,
}
CRASHES, UPSETS = "crashes", "upsets"
SETS = (CRASHES, UPSETS)

FAULTS_PER_ROUND = 120
MIN_FAULTS = 20


@dataclass(frozen=True)
class Round:
    """A batch of inputs and the faults while it is worked.

    Attributes:
        faults: kinds in order, to be spread over the work.
        num_poison, num_damaged: special pictures among the inputs.
    """

    faults: tuple[str, ...]
    num_poison: int
    num_damaged: int


@dataclass(frozen=True)
class Schedule:
    """All of a drill's faults; objects and, by kind, records are damaged when the work is done."""

    rounds: tuple[Round, ...]
    num_damaged_objects: int
    damaged_records: Mapping[str, int] = field(default_factory=dict)


def make_schedule(seed: int, num_faults: int, *, s3: bool, kinds: str = CRASHES) -> Schedule:
    """Shares `num_faults` out among the kinds, at least one each, and shuffles them into rounds.

    Args:
        seed: of the order.
        num_faults: in all.
        s3: whether the dataset is on an S3 store.
        kinds: one of SETS.

    Raises:
        ValueError: fewer than MIN_FAULTS, or no such set.
    """
    check_choice("kinds", kinds, SETS)
    if num_faults < MIN_FAULTS:
        raise ValueError(f"{num_faults} faults cannot cover every kind: ask for at least {MIN_FAULTS}")
    weights = names.WEIGHTS if kinds == UPSETS else {**_ANYWHERE, **(_S3 if s3 else _LOCAL)}
    counts = _counts(num_faults, weights)
    aside = Counter({kind: counts.pop(kind, 0) for kind in (POISON_IMAGE, DAMAGED_INPUT, DAMAGED_OBJECT)})
    records = {kind: counts.pop(kind) for kind in names.DAMAGES if kind in counts}
    timed = [kind for kind, n in sorted(counts.items()) for _ in range(n)]
    random.Random(seed).shuffle(timed)
    num_rounds = -(-num_faults // FAULTS_PER_ROUND)
    return Schedule(
        tuple(
            Round(
                tuple(timed[i::num_rounds]),
                _part(aside[POISON_IMAGE], i, num_rounds),
                _part(aside[DAMAGED_INPUT], i, num_rounds),
            )
            for i in range(num_rounds)
        ),
        aside[DAMAGED_OBJECT],
        records,
    )


def _counts(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in the weights' proportions that add up; the most frequent kind takes what is over."""
    whole = sum(weights.values())
    counts = {kind: max(1, round(total * weight / whole)) for kind, weight in weights.items()}
    counts[max(counts, key=lambda kind: counts[kind])] += total - sum(counts.values())
    return counts


def _part(total: int, i: int, num_parts: int) -> int:
    return total // num_parts + (i < total % num_parts)
