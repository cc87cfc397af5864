"""What has befallen each shard, and deaths whose cause isn't settled yet.

A worker that dies counts against its shard, unless its node went with it; ray takes a while to notice that a
node is lost, so such a death is in doubt until a verdict: the node turns out lost and what was counted is
taken back, or `NODE_VERDICT_S` pass and it stands. A shard whose fate hangs on a doubt waits for the verdict:
one that would be given up, or would leave out an image.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.errors import DamagedObject, ObjectNotFound, Recalled, SourceChanged, StoreUnavailable
from maskmill.workers.run.in_hand import Announcement
from maskmill.workers.run.spec import ShardTask

DEATHS_BEFORE_ONE_BY_ONE = 2
DEATHS_TO_BLAME_AN_IMAGE = 3
"""In a row: two may be chance where machines die often, and a blamed image is lost to the dataset."""

MAX_BLAMED_IMAGES = 10
NODE_VERDICT_S = 30.0

RETRIED = (
    StoreUnavailable,
    DamagedObject,
    ObjectNotFound,
    Recalled,
    SourceChanged,
    MemoryError,
    ConnectionError,
)
"""Errors of one shard, or of a moment; all others stop the run."""


@dataclass(eq=False)
class History:
    """What has happened to one shard.

    Attributes:
        attempts: turns begun.
        counted: turns that failed and are held against it.
        deaths: workers that died with it, but those that died on a named image.
        died_on: the named images' deaths in a row.
    """

    shard: int
    attempts: int = 0
    counted: int = 0
    deaths: int = 0
    died_on: Counter[Announcement] = field(default_factory=Counter)
    _last: Announcement | None = None

    def next_task(self) -> ShardTask:
        """The next turn: whole, or image by image once workers have died of it."""
        self.attempts += 1
        return ShardTask(
            shard=self.shard,
            attempt=new_attempt(),
            one_by_one=self.deaths >= DEATHS_BEFORE_ONE_BY_ONE,
            skip_keys={image.key: image.column for image in self.died_on if self.is_blamed(image)},
        )

    def died(self, on: Announcement | None) -> bool:
        """Counts a death; True if it names an image, which is progress and not held against the shard."""
        if on is not None and (on in self.died_on or len(self.died_on) < MAX_BLAMED_IMAGES):
            if self._last is not None and self._last != on and not self.is_blamed(self._last):
                self.died_on[self._last] = 0  # survived meanwhile
            self._last = on
            self.died_on[on] += 1
            return True
        self.deaths += 1
        self.counted += 1
        return False

    def is_blamed(self, image: Announcement) -> bool:
        """Whether an image has killed often enough to be left out."""
        return self.died_on[image] >= DEATHS_TO_BLAME_AN_IMAGE

    def take_back(self, on: Announcement | None) -> None:
        """Undoes `died`."""
        if on is not None:
            self.died_on[on] -= 1
        else:
            self.deaths -= 1
            self.counted -= 1


@dataclass(frozen=True, eq=False)
class Doubt:
    """A counted death whose node may yet turn out lost.

    Attributes:
        on: the image it named, if it was counted against one.
        waits: the shard's fate hangs on it.
    """

    history: History
    node_id: str
    on: Announcement | None
    reason: str
    waits: bool
    since: float = field(default_factory=time.monotonic)


class Doubts:
    """The deaths that wait for a verdict."""

    def __init__(self) -> None:
        self._open: list[Doubt] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def hold_shards(self) -> bool:
        """Whether any shard waits for a verdict."""
        return any(doubt.waits for doubt in self._open)

    def add(self, doubt: Doubt) -> None:
        """Leaves a death open."""
        self._open.append(doubt)

    def settle(self, live_nodes: Set[str]) -> list[Doubt]:
        """Gives the verdicts that are due; returns those whose shards waited for them."""
        settled = []
        for doubt in list(self._open):
            lost = doubt.node_id not in live_nodes
            if lost:
                doubt.history.take_back(doubt.on)
            if lost or time.monotonic() - doubt.since > NODE_VERDICT_S:
                self._open.remove(doubt)
                settled.append(doubt)
        return [doubt for doubt in settled if doubt.waits]
