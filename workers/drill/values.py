"""What a drill is asked, what came of it, and where a round stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DrillSettings:
    """A drill.

    Attributes:
        seed: of the faults, their order, the pictures.
        num_faults: to inject.
        minutes: after which no more faults come.
        store: the dataset's root, a new place (its inputs go beside it, "<store>-inputs"); None is a folder
            in `scratch`.
        scratch: an empty or new folder for everything else.
        num_nodes, num_cpus: of the cluster, beside its head.
        workers: of each driver.
        seconds: an image takes.
        build: see DriverJob.
        kinds: of the faults: "crashes" or "upsets"; see schedule.py.
    """

    seed: int = 0
    num_faults: int = 350
    minutes: float = 20.0
    store: str | None = None
    scratch: Path
    num_nodes: int = 2
    num_cpus: int = 2
    workers: int = 3
    seconds: float = 0.1
    build: str = ""
    kinds: str = "crashes"

    @property
    def dataset(self) -> str:
        """The disturbed dataset's root."""
        return self.store or str(self.scratch / "dataset")


@dataclass(frozen=True, kw_only=True)
class DrillReport:
    """What came of a drill.

    Attributes:
        faults: injected, by kind; num_faults in all.
        lost, duplicated, different: keys, against the undisturbed job; all 0 if nothing came of the faults.
        undetected: objects that were damaged at rest and not named by verify.
        images, shards: of the dataset.
        drivers: ended in which way.
        problems: what is wrong, named.
    """

    seed: int
    dataset: str
    faults: Mapping[str, int]
    num_faults: int
    lost: int
    duplicated: int
    different: int
    undetected: int
    images: int
    shards: int
    drivers: Mapping[str, int]
    problems: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Nothing lost, double, different or otherwise wrong."""
        return not (self.lost or self.duplicated or self.different or self.undetected or self.problems)


@dataclass(eq=False)
class Progress:
    """Of a round's shards."""

    pending: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    moved: float = field(default_factory=time.monotonic)

    def see(self, event: Mapping[str, Any]) -> None:
        """Takes an event in."""
        if event["kind"] == "pending":
            self.pending |= set(event["shards"])
            self.moved = time.monotonic()
        elif event["kind"] == "done":
            self.done.add(event["shard"])
            self.moved = time.monotonic()

    @property
    def fraction(self) -> float:
        """Done so far."""
        return len(self.done & self.pending) / len(self.pending) if self.pending else 0.0
