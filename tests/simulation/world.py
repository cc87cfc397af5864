"""A store in memory and a seeded scheduler: drivers of the real storage code, switched at every store call.

    world = World(seed)
    world.add("ingest", lambda store: ...)      # a function of its own view of the store
    world.run()                                 # one call at a time, in an order that the seed decides

A driver is quick or slow, by the seed. Time is the world's: every call costs a second, and leases beat when
they are due while their driver is awake. One driver may be suspended at one of its calls until the others
have ended (`suspend`), long enough that its lease is stale; or killed soon after (`kill`). The same seed
gives the same schedule.

It does not know: calls by helper threads of a driver (reads ahead): those run at once, within its turn.
"""

from __future__ import annotations

import hashlib
import io
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from maskmill.storage.drivers import lease as leases
from maskmill.storage.errors import ObjectNotFound
from maskmill.storage.stores.base import ObjectInfo, Unfinished, check_name

BEAT_S = leases.INTERVAL_S
STALE_S = leases.MISSED_BEATS * leases.INTERVAL_S + leases.SLACK_S + 10


class Killed(BaseException):
    """A driver's end that nothing of it survives."""


@dataclass(eq=False)
class Driver:
    """A thread that runs one call to the store at a time."""

    name: str
    work: Callable[[SimStore], object]
    store: SimStore
    result: object = None
    error: BaseException | None = None
    ended: bool = False
    calls: int = 0
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: threading.Thread | None = None
    pace: float = 1.0


class World:
    """The store's contents, the clock and the scheduler."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_s = 1_000_000.0
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.drivers: list[Driver] = []
        self.history: list[str] = []
        self.stop_at: tuple[str, int, str] | None = None
        self._back = threading.Semaphore(0)
        self._lock = threading.RLock()
        self._killing: Driver | None = None
        self._calls_left = 0

    def clock(self) -> float:
        """Seconds since 1970."""
        return self.now_s

    def view(self, name: str) -> SimStore:
        """The store as one driver has it; outside of `run` it switches nothing."""
        return SimStore(self, name)

    def add(self, name: str, work: Callable[[SimStore], object]) -> Driver:
        """A driver to be run."""
        driver = Driver(name, work, self.view(name), pace=0.02 + self.random.random() ** 3)
        self.drivers.append(driver)
        return driver

    def suspend(self, name: str, call: int) -> None:
        """Suspends a driver before its n-th call, until all others have ended and its lease is stale."""
        self.stop_at = (name, call, "suspend")

    def kill(self, name: str, call: int) -> None:
        """The same, and it ends within a few calls after it wakes, without a chance to clean up."""
        self.stop_at = (name, call, "kill")

    def run(self) -> None:
        """Runs all drivers to their ends. Errors are theirs (`Driver.error`)."""
        for driver in self.drivers:
            driver.thread = threading.Thread(target=self._live, args=(driver,), daemon=True)
            driver.thread.start()
        while running := [driver for driver in self.drivers if not driver.ended]:
            awake = [driver for driver in running if not self._is_stopped(driver)]
            if not awake:
                self._wake(running[0])
                continue
            self._step(self.random.choices(awake, [driver.pace for driver in awake])[0])

    def _is_stopped(self, driver: Driver) -> bool:
        return self.stop_at is not None and self.stop_at[:2] == (driver.name, driver.calls)

    def _wake(self, driver: Driver) -> None:
        assert self.stop_at is not None
        how = self.stop_at[2]
        self._pass_time(STALE_S)
        self.stop_at = None
        self.history.append(f"{driver.name}: {how}")
        if how == "kill":
            self._killing, self._calls_left = driver, self.random.randrange(5)
        self._step(driver)

    def _step(self, driver: Driver) -> None:
        self._pass_time(1.0)
        if self._sleeper() is not None and self.random.random() < 0.2:
            self._pass_time(STALE_S)
        driver.go.release()
        self._back.acquire()

    def _sleeper(self) -> Driver | None:
        return next((one for one in self.drivers if not one.ended and self._is_stopped(one)), None)

    def _pass_time(self, seconds: float) -> None:
        """All that are awake beat meanwhile, as their threads would; who has just been woken, only then."""
        while seconds > 0:
            self.now_s += min(seconds, BEAT_S)
            seconds -= BEAT_S
            for driver in self.drivers:
                for one in tuple(leases._held.get(driver.store, ())) if driver is not self._sleeper() else ():
                    one.beat()

    def _live(self, driver: Driver) -> None:
        driver.go.acquire()
        try:
            driver.result = driver.work(driver.store)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the test looks at it
            driver.error = exc
        driver.ended = True
        leases._held.pop(driver.store, None)
        self._back.release()

    @contextmanager
    def call(self, store: SimStore, what: str) -> Iterator[None]:
        """A driver's call: first the scheduler decides who is next."""
        driver = next((one for one in self.drivers if one.store is store), None)
        if driver is not None and threading.current_thread() is driver.thread:
            driver.calls += 1
            self._back.release()
            driver.go.acquire()
            if self._killing is driver:
                if self._calls_left <= 0:
                    raise Killed
                self._calls_left -= 1
            self.history.append(f"{store.name}: {what}")
        with self._lock:
            yield


@dataclass(eq=False, frozen=True)
class SimStore:
    """An ObjectStore over a World's memory."""

    world: World
    name: str

    @property
    def root(self) -> str:
        return "/sim"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self.world.call(self, f"list {prefix}"):
            found = [self._info(name) for name in sorted(self.world.objects) if name.startswith(prefix)]
        yield from found

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        with self.world.call(self, f"folders {prefix}"):
            names = [name[len(prefix) :] for name in self.world.objects if name.startswith(prefix)]
        return tuple(sorted({name.partition("/")[0] for name in names if "/" in name}))

    def stat(self, name: str) -> ObjectInfo:
        with self.world.call(self, f"stat {name}"):
            return self._info(name)

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        with self.world.call(self, f"read {name}"):
            data = self._data(name)
        return data[start:] if size is None else data[start : start + size]

    def open_read(self, name: str, start: int = 0, size: int | None = None) -> BinaryIO:
        return io.BytesIO(self.read(name, start, size))

    @contextmanager
    def open_write(self, name: str) -> Iterator[BinaryIO]:
        buffer = _Kept()
        yield buffer
        self.put(name, buffer.getvalue())

    def put_if_absent(self, name: str, data: bytes) -> bool:
        with self.world.call(self, f"put_if_absent {name}"):
            if name in self.world.objects:
                return self._data(name) == data
            self.world.objects[check_name(name)] = (data, self.world.now_s)
            return True

    def put(self, name: str, data: bytes) -> None:
        with self.world.call(self, f"put {name}"):
            self.world.objects[check_name(name)] = (data, self.world.now_s)

    def delete(self, name: str) -> None:
        with self.world.call(self, f"delete {name}"):
            self.world.objects.pop(name, None)

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        return iter(())

    def abandon(self, write: Unfinished) -> None:
        raise AssertionError("nothing is ever unfinished here")

    def _data(self, name: str) -> bytes:
        if name not in self.world.objects:
            raise ObjectNotFound(f"{self.root}/{name}: no such object")
        return self.world.objects[name][0]

    def _info(self, name: str) -> ObjectInfo:
        data, modified_s = self._data(name), self.world.objects[name][1]
        return ObjectInfo(name, len(data), hashlib.sha256(data).hexdigest(), modified_s)


class _Kept(io.BytesIO):
    """A buffer whose bytes outlive its closing by who wrote into it."""

    def close(self) -> None:
        pass
