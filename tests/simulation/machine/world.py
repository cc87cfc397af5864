"""A seeded scheduler: actors of the real code over a store in memory, switched at every call to a store.

    world = World(seed)
    world.add("ingest", lambda store: ...)      # a function of its own view of the store
    world.run()                                 # one call at a time, in an order that the seed decides

An actor is a greenlet, so one thread runs them all; at each of its calls the baton may go to another one. It
is quick or slow, by the seed. Time is the world's: a call costs about a second, an actor's own clock is off
by its own amount, and leases beat when they are due while their actor is awake. What else happens to a call
(it fails, its answer is lost, its actor is killed or sleeps) is fates.py's to say. One actor may be suspended
at one of its calls until the others have ended (`suspend`), long enough that its lease is stale; or killed
soon after (`kill`). The same seed gives the same schedule, history and all.

It does not know: threads of an actor's own; `one_thread.py` has their work done within its turn.
"""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from greenlet import getcurrent, greenlet

from maskmill.storage.drivers import lease as leases
from maskmill.storage.errors import OutOfSpace, StorageError, StoreUnavailable
from tests.simulation.machine.fates import CALM, Fate, Fates
from tests.simulation.machine.store import Objects, SimStore, newest

if TYPE_CHECKING:
    from maskmill.storage.stores.base import ObjectStore

T = TypeVar("T")

BEAT_S = leases.INTERVAL_S
STALE_S = leases.MISSED_BEATS * leases.INTERVAL_S + leases.SLACK_S + 10
MOST_CALLS = 40_000  # of a schedule: one that needs more never ends


class Killed(BaseException):
    """An actor's end that nothing of it survives."""


class Endless(BaseException):
    """A schedule that doesn't come to an end."""


@dataclass(eq=False)
class Driver:
    """Somebody with a stack of their own, who runs one call to the store at a time."""

    name: str
    work: Callable[[SimStore], object]
    store: SimStore
    pace: float
    offset_s: float = 0.0
    result: object = None
    error: BaseException | None = None
    ended: bool = False
    killed: bool = False
    calls: int = 0
    wakes_s: float = 0.0
    in_beat: bool = False
    hired: bool = False  # by a driver that waits for it
    mates: list[Driver] = field(default_factory=list)  # threads of its process: they are suspended with it
    stack: greenlet | None = None


class World:
    """The stores' contents, the clock and the scheduler."""

    def __init__(self, seed: int, fates: Fates = CALM) -> None:
        self.random = random.Random(seed)
        self.fates = fates
        self.now_s = 1_000_000.0
        self.objects: Objects = {}
        self.spaces: dict[str, Objects] = {"data": self.objects}
        self.unfinished: dict[str, dict[str, float]] = {}
        self.drivers: list[Driver] = []
        self.history: list[str] = []
        self.stop_at: tuple[str, int, str] | None = None
        self.num_switches = 0
        self.hits: Counter[tuple[str, str]] = Counter()
        self.on_change: Callable[[str, str, bytes | None], None] = lambda space, name, data: None
        self.one_by_one = (
            False  # actors run to their ends in the order they were added, but for who is stopped
        )
        self._holder: Driver | None = None
        self._stage: greenlet | None = None  # who called `run`
        self._lock = threading.RLock()  # for calls from outside of `run`
        self._caller: Driver | None = None
        self._killing: Driver | None = None
        self._calls_left = 0
        self._num_calls = 0
        newest[:] = [self]

    # What actors see

    def clock(self) -> float:
        """Seconds since 1970, as the stores have it."""
        return self.now_s

    def clock_of(self, store: SimStore) -> Callable[[], float]:
        """The clock of the machine that has this view: each is off by its own amount."""
        driver = next((one for one in self.drivers if one.store is store), None)
        return lambda: self.now_s + (driver.offset_s if driver is not None else 0.0)

    def sleep(self, seconds: float) -> None:
        """An actor's pause: others go on meanwhile."""
        driver = self._acting()
        if driver is not None:
            driver.wakes_s = self.now_s + seconds
            self._turn(driver)

    def view(self, name: str) -> SimStore:
        """The dataset as one process has it; outside of `run` it switches nothing."""
        return SimStore(self, f"sim://data-{name}")

    def add(self, name: str, work: Callable[[SimStore], object], *, hired: bool = False) -> Driver:
        """An actor to be run, or, while the world runs, one that begins beside the others."""
        pace = 0.02 + self.random.random() ** 3
        driver = Driver(name, work, self.view(name), pace, hired=hired)
        self.drivers.append(driver)
        if self._holder is not None:
            self._start(driver)
        return driver

    def suspend(self, name: str, call: int) -> None:
        """Suspends a driver before its n-th call, until all others have ended and its lease is stale."""
        self.stop_at = (name, call, "suspend")

    def nap(self, name: str, call: int) -> None:
        """The same, but it wakes as soon as the others have ended: its lease may hold."""
        self.stop_at = (name, call, "nap")

    def kill(self, name: str, call: int) -> None:
        """The same, and it ends within a few calls after it wakes, without a chance to clean up."""
        self.stop_at = (name, call, "kill")

    # The scheduler

    def run(self) -> None:
        """Runs all actors to their ends. Errors are theirs (`Driver.error`)."""
        self._stage = getcurrent()
        for driver in self.drivers:
            self._start(driver)
        while (chosen := self._choose()) is not None:
            self._pass_baton(chosen)  # comes back when one has ended
        self._holder = None

    def _start(self, driver: Driver) -> None:
        driver.stack = greenlet(lambda: self._live(driver), parent=self._stage)

    def _live(self, driver: Driver) -> None:
        try:
            driver.result = driver.work(driver.store)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the test looks at it
            driver.error = exc
        driver.ended = True
        leases._held.pop(driver.store, None)
        self.history.append(f"{driver.name}: ends{f', {_short(driver.error)}' if driver.error else ''}")

    def _pass_baton(self, chosen: Driver) -> None:
        assert chosen.stack is not None
        self._holder = chosen
        chosen.stack.switch()

    def _turn(self, driver: Driver) -> None:
        """The baton may go to another one; comes back when it is this one's turn again."""
        chosen = self._choose()
        assert chosen is not None
        if chosen is not driver:
            self._pass_baton(chosen)

    def _choose(self) -> Driver | None:
        running = [driver for driver in self.drivers if not driver.ended]
        if not running:
            return None
        awake = [driver for driver in running if self._is_awake(driver)]
        if not awake:
            stopped = [driver for driver in running if self._is_stopped(driver)]
            asleep = [driver for driver in running if driver not in stopped]
            if asleep:
                wakes_s = min(driver.wakes_s for driver in asleep)
                self._pass_time(max(0.0, wakes_s - self.now_s))
                awake = [driver for driver in asleep if driver.wakes_s == wakes_s]
            else:
                return self._woken(stopped[0])
        self._pass_time(0.5 + self.random.random())
        if self.one_by_one:
            return awake[0]
        stopped_one = any(self._is_stopped(driver) for driver in running)
        if stopped_one and self.random.random() < 0.2 and not any(one.in_beat for one in awake):
            self._pass_time(STALE_S)
        return self.random.choices(awake, [driver.pace for driver in awake])[0]

    def _is_awake(self, driver: Driver) -> bool:
        return not self._is_stopped(driver) and driver.wakes_s <= self.now_s

    def _is_stopped(self, driver: Driver) -> bool:
        return self.stop_at is not None and self.stop_at[:2] == (driver.name, driver.calls)

    def _woken(self, driver: Driver) -> Driver:
        assert self.stop_at is not None
        how = self.stop_at[2]
        if how != "nap":
            self._pass_time(STALE_S)
        self.stop_at = None
        self.history.append(f"{driver.name}: {how}")
        if how == "kill":
            self._killing, self._calls_left = driver, self.random.randrange(5)
        return driver

    def _pass_time(self, seconds: float) -> None:
        """All that are awake beat meanwhile, as their threads would; who has just been woken, only then."""
        while seconds > 0:
            self.now_s += min(seconds, BEAT_S) if leases._held else seconds
            seconds -= BEAT_S if leases._held else seconds
            for store, held in tuple(leases._held.items()):
                if any(map(_is_due, held)) and self._can_beat(store):
                    self._beat(held)

    def _can_beat(self, store: ObjectStore) -> bool:
        """Whether the process that has this view runs."""
        driver = next((one for one in self.drivers if one.store is store), None)
        return driver is not None and not (driver.ended or driver.killed or self._is_suspended(driver))

    def _is_suspended(self, driver: Driver) -> bool:
        return self._is_stopped(driver) or (driver.wakes_s > self.now_s and driver.wakes_s - self.now_s > 60)

    def _beat(self, held: list[leases.Lease]) -> None:
        for lease in tuple(held):
            if _is_due(lease):
                self._beating = True  # a thread of its own would do it
                try:
                    with suppress(StorageError):
                        lease.beat()
                finally:
                    self._beating = False

    _beating = False

    def _acting(self) -> Driver | None:
        """Whose code is running now, None outside of `run`."""
        holder = self._holder
        return holder if holder is not None and holder.stack is getcurrent() else None

    # Calls

    def call(self, op: str, what: str, effect: Callable[[], T]) -> T:
        """A call of whoever runs now: first the scheduler decides who is next, then its fate."""
        driver = self._acting()
        if driver is None or self._beating:
            with self._lock:
                return effect()
        if driver.killed:
            raise Killed
        driver.calls += 1
        self._num_calls += 1
        if self._num_calls > MOST_CALLS:
            raise Endless(f"{driver.name}: {op} {what}")
        driver.in_beat = op == "put" and what.startswith("drivers/")
        self._turn(driver)
        driver.in_beat = False
        if self._killing is driver:
            if self._calls_left <= 0:
                driver.killed = True
                raise Killed
            self._calls_left -= 1
        self.num_switches += driver is not self._caller  # who only waits and looks again counts for none
        self._caller = driver
        fate = self.fates.of(self, driver, op)
        self.history.append(f"{driver.name}: {op} {what}{'' if fate is Fate.NONE else f'   <- {fate.value}'}")
        if fate is not Fate.NONE:
            self.hits[op, fate.value] += 1
        return self._met(driver, fate, f"{op} {what}", effect)

    def _met(self, driver: Driver, fate: Fate, what: str, effect: Callable[[], T]) -> T:
        if fate is Fate.FAILS:
            raise StoreUnavailable(f"{driver.store.root}: {what}: no answer")
        if fate is Fate.FULL:
            raise OutOfSpace(f"{driver.store.root}: {what}: no space left")
        if fate is Fate.KILLED:
            driver.killed = True
            raise Killed
        if fate is Fate.SLEEPS:
            self._turn(driver)
        found = effect()
        if fate is Fate.DIES_AFTER:
            driver.killed = True
            raise Killed
        if fate is Fate.FAILS_AFTER:
            raise StoreUnavailable(f"{driver.store.root}: {what}: the answer never came")
        if fate is Fate.ANSWER_LOST:  # the client asks once more
            self._turn(driver)
            return effect()
        return found


def _is_due(lease: leases.Lease) -> bool:
    return lease._clock() - lease._last_beat_s >= lease._interval_s


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {re.sub('process [0-9]+', 'process', str(error))[:150]}"
