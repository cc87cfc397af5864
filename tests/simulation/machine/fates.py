"""What becomes of a call to the store: mostly nothing; else it fails, or who made it does.

A schedule draws once how hard its world is, and then for every call. Calls that are rare draw more often, so
that each kind of call meets each fate in a few thousand schedules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.machine.world import Driver, World

DAY_S = 86_400.0
WRITES = ("put", "put_if_absent", "finish")
RARE: Mapping[str, float] = {
    "abandon": 200.0,
    "unfinished": 40.0,
    "folders": 2.0,
    "stat": 1.0,
    "put": 6.0,
    "delete": 5.0,
    "finish": 8.0,
    "put_if_absent": 4.0,
    "open_read": 3.0,
}
MOST = 0.25  # of one fate: the first would else leave nothing of the rarest calls to the last


class Fate(Enum):
    """Of one call."""

    NONE = ""
    FAILS = "before"
    FAILS_AFTER = "after"
    ANSWER_LOST = "lost answer"
    KILLED = "kill"
    DIES_AFTER = "kill after"
    SLEEPS = "sleep"
    FULL = "disk full"


class Fates:
    """Nothing ever happens."""

    def of(self, world: World, driver: Driver, op: str) -> Fate:
        """What becomes of this call."""
        return Fate.NONE


CALM = Fates()


@dataclass
class Dice(Fates):
    """Chances of a call, each drawn from the schedule's own randomness.

    Attributes:
        fails, loses: that it fails before or after its effect; that its answer is lost.
        kills, sleeps: that its actor is killed, or suspended for seconds to days.
        fills: that the disk is full for a while.
    """

    random: Random
    fails: float = 0.0
    loses: float = 0.0
    kills: float = 0.0
    sleeps: float = 0.0
    fills: float = 0.0
    immortal: frozenset[str] = frozenset()
    most: int = 12
    full_until_s: float = 0.0
    drawn: int = field(default=0, init=False)

    @classmethod
    def drawn_by(cls, dice: Random) -> Dice:
        """How hard a schedule is: a third of all worlds are calm but for their order."""
        if dice.random() < 0.3:
            return cls(dice)

        def chance(most: float) -> float:
            """Of one kind of trouble: half of them are absent."""
            return dice.choice([0.0, 0.0, most / 4, most])

        return cls(
            dice,
            fails=chance(0.02),
            loses=chance(0.02),
            kills=chance(0.012),
            sleeps=chance(0.01),
            fills=chance(0.002),
        )

    def of(self, world: World, driver: Driver, op: str) -> Fate:
        """See `Fates.of`."""
        if op in WRITES and world.now_s < self.full_until_s:
            return Fate.FULL
        if self.drawn >= self.most:
            return Fate.NONE
        at, weight = self.random.random(), RARE.get(op, 0.6)
        for fate, chance in (
            (Fate.FAILS, self.fails / 2),
            (Fate.FAILS_AFTER, self.fails / 2),
            (Fate.ANSWER_LOST, self.loses),
            (Fate.KILLED, self.kills / 2),
            (Fate.DIES_AFTER, self.kills / 2),
            (Fate.SLEEPS, self.sleeps),
            (Fate.FULL, self.fills if op in WRITES else 0.0),
        ):
            at -= min(MOST, chance * weight)
            if at < 0:
                return self._drawn(world, driver, fate)
        return Fate.NONE

    def _drawn(self, world: World, driver: Driver, fate: Fate) -> Fate:
        self.drawn += 1
        if fate is Fate.FULL:
            self.full_until_s = world.now_s + self.random.choice([5.0, 60.0])
        if fate is Fate.SLEEPS:
            # Whoever waits for a hired one looks every few seconds: days of that never end
            longest_s = 600.0 if driver.hired else 3 * DAY_S
            wakes_s = world.now_s + self.random.choice([5.0, 50.0, 100.0, 200.0, 600.0, longest_s])
            for one in (driver, *driver.mates):
                one.wakes_s = wakes_s
        return fate
