"""Which faults a drill injects, and in which order: all from the seed.

What it doesn't know: when. The conductor lets one happen as the work goes on; which worker meets it is up to
the moment.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from maskmill.workers.drill import disk, proxy

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
    """All of a drill's faults; `num_damaged_objects` are damaged when the work is done."""

    rounds: tuple[Round, ...]
    num_damaged_objects: int


def make_schedule(seed: int, num_faults: int, *, s3: bool) -> Schedule:
    """Shares `num_faults` out among the kinds, at least one each, and shuffles them into rounds.

    Raises:
        ValueError: fewer than MIN_FAULTS.
    """
    if num_faults < MIN_FAULTS:
        raise ValueError(f"{num_faults} faults cannot cover every kind: ask for at least {MIN_FAULTS}")
    counts = _counts(num_faults, {**_ANYWHERE, **(_S3 if s3 else _LOCAL)})
    aside = {kind: counts.pop(kind) for kind in (POISON_IMAGE, DAMAGED_INPUT, DAMAGED_OBJECT)}
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
    )


def _counts(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in the weights' proportions that add up; the most frequent kind takes what is over."""
    whole = sum(weights.values())
    counts = {kind: max(1, round(total * weight / whole)) for kind, weight in weights.items()}
    counts[max(counts, key=lambda kind: counts[kind])] += total - sum(counts.values())
    return counts


def _part(total: int, i: int, num_parts: int) -> int:
    return total // num_parts + (i < total % num_parts)
