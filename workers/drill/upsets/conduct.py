"""Carries the second set of faults out, one order at a time, beside the conductor's loop.

It does not know: when a fault is due, and the comparison at the end (../conductor.py).
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from maskmill.workers.drill.orders import Order
from maskmill.workers.drill.upsets import names
from maskmill.workers.drill.upsets.beside import Beside
from maskmill.workers.drill.upsets.pauses import LONG_S, SHORT_S, Pauses

if TYPE_CHECKING:
    from maskmill.workers.drill.drivers import Drivers
    from maskmill.workers.drill.fleet import Fleet
    from maskmill.workers.drill.job import DriverJob

LOST_S = 90.0
"""Within which drivers must have ended whose control service is gone."""

AGENT_S = 4.0
"""After which a node whose agent was killed is taken away, if it hasn't gone by itself."""

COMMAND_S = 120.0
"""Within which a command must have ended that nobody disturbs any more."""


class Upsets:
    """The second set of one drill.

    Args:
        drivers: of the dataset.
        beside: its commands.
        rng: chooses whom a fault meets.
        start: the job and the environment that a command is started with.

    Attributes:
        done: faults by kind.
        problems: what should not have happened.
    """

    def __init__(
        self,
        drivers: Drivers,
        beside: Beside,
        rng: random.Random,
        start: Callable[[], tuple[DriverJob, Mapping[str, str]]],
    ) -> None:
        self.drivers, self.beside = drivers, beside
        self._rng, self._start = rng, start
        self._pauses = Pauses()
        self._lost_at: float | None = None
        self._bury_at: float | None = None
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []

    def carry_out(self, fleet: Fleet, order: Order) -> bool:
        """One fault. False where it is not possible now."""
        done = self._carry_out(fleet, order)
        self.done[order.kind] += done
        return done

    def _carry_out(self, fleet: Fleet, order: Order) -> bool:
        kind = order.kind
        if kind in names.COMMANDS:
            return self.beside.start(kind, *self._start())
        if self._lost_at is not None or self._bury_at is not None:
            return False
        if kind in names.PAUSES:
            pids = fleet.workers() if kind == names.WORKER_PAUSE else self.drivers.pids()
            awake = [pid for pid in pids if not self._pauses.sleeps(pid)]
            seconds = LONG_S if kind == names.DRIVER_PAUSE and order.number % 2 else SHORT_S
            return bool(awake) and self._pauses.stop(self._rng.choice(awake), seconds)
        if kind == names.GCS_KILL:
            if not self.drivers.num_live():
                return False
            fleet.kill_control_service()
            self.drivers.lost_service = True
            self._lost_at = time.monotonic()
            return True
        if not fleet.kill_agent(self._rng):
            return False
        self._bury_at = time.monotonic() + AGENT_S
        return True

    @property
    def may_drive(self) -> bool:
        """Whether there is a cluster that a driver could be started on."""
        return self._lost_at is None

    def look(self, fleet: Fleet) -> None:
        """Wakes who slept enough, and puts in place what was lost."""
        now = time.monotonic()
        self._pauses.wake()
        self.beside.take_ends()
        if self._bury_at is not None and now >= self._bury_at:
            fleet.replace_wounded()
            self._bury_at = None
        if self._lost_at is not None:
            late = now - self._lost_at > LOST_S
            if late:
                self.problems.append(f"a driver still runs {LOST_S:.0f} s after the control service was lost")
                self._pauses.wake(all_of_them=True)
                self.drivers.kill_all()
            if late or not self.drivers.num_live():
                fleet.begin_again()
                self._lost_at = None

    def settle(self) -> None:
        """Peace: everybody awake, every command ended, and what was asked to be forgotten, forgotten."""
        self._pauses.wake(all_of_them=True)
        self._await_commands()
        for _ in range(3 if self.beside.forgotten else 0):
            self.beside.forget_all(*self._start())
            if self._await_commands() == ["complete"]:
                return
        if self.beside.forgotten:
            self.problems.append(f"cannot be forgotten: {', '.join(sorted(self.beside.forgotten))}")

    def _await_commands(self) -> list[str]:
        ends, until = list[str](), time.monotonic() + COMMAND_S
        while self.beside.num_live() and time.monotonic() < until:
            time.sleep(0.1)
        if self.beside.num_live():
            self.problems.append(f"a command still runs {COMMAND_S:.0f} s after everything else ended")
            self.beside.kill_all()
        ends += self.beside.take_ends()
        return ends
