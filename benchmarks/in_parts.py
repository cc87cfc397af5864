"""Planning beside the work, and two drivers on one dataset, on a clock that runs as events do.

    python -m benchmarks.in_parts                 SA-1B: 11 M images in 36,600 tars, 128 GPUs at 1 s an image
    python -m benchmarks.in_parts --tars 366      a hundredth of it
    python -m benchmarks.in_parts --drivers 2     the shards, planned, by two drivers of half the GPUs each

Real: the planner with its parts, the feed, the claims, the store's calls. Stand-ins: the lister, the bytes (a
tar takes as long as its bytes at --gigabytes-a-second), and workers, who wait instead of computing. Planning
SA-1B's size takes some ten minutes of one core, the clock's day included.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import random
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from maskmill.storage.drivers.lease import announce
from maskmill.storage.drivers.shard_claims import ShardClaims
from maskmill.storage.drivers.shard_feed import LOOK_EVERY_S, ShardFeed
from maskmill.storage.plan.cutting import PartClock
from maskmill.storage.plan.examine import Examined, HashedImage, ScannedTar
from maskmill.storage.plan.make_plan import plan_parts
from maskmill.storage.plan.walk import InputFile, Skipped
from maskmill.workers.pool.todo import Todo
from tests.simulation.machine.store import SimStore, opened_by_address
from tests.simulation.machine.world import World

IMAGE_BYTES = 400_000
PART = re.compile(r"plan/\d+\.json")
START_S = 30.0
"""Until a worker's models are loaded."""


@dataclass(frozen=True)
class Asked:
    """What is simulated."""

    tars: int = 36_600
    images_a_tar: int = 300
    shard_size: int = 600
    gpus: int = 128
    image_s: float = 1.0
    gigabytes_a_second: float = 1.0
    drivers: int = 1
    late_s: float = 100.0
    claims: bool = True


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        first_s: when the first shard was handed out.
        planned_s: when the plan was made. parts: that it has.
        busy: share of the workers' time spent at shards, from `first_s` until the last was handed out.
        busy_at_planning: the same until the plan was made.
        wall_s: the whole. twice: shards done more than once. shards: done at all.
        speed: against the sum of the drivers' speeds, each alone.
        foretold: share of shards, each worker's first left out, that their worker was told of ahead.
        claim_calls: to the store, for claims, by kind.
    """

    first_s: float = 0.0
    planned_s: float = 0.0
    parts: int = 0
    busy: float = 0.0
    busy_at_planning: float = 0.0
    wall_s: float = 0.0
    twice: int = 0
    shards: int = 0
    speed: float = 0.0
    foretold: float = 0.0
    claim_calls: Mapping[str, int] = field(default_factory=dict)


class Planner:
    """A driver's plan in the making, on the clock."""

    def __init__(self, store: SimStore, asked: Asked) -> None:
        self.now_s = 0.0
        self.written: list[tuple[float, int, int]] = []  # when, and which shards
        self._asked, self._store, self._seen = asked, store, 0
        self._parts = plan_parts(
            store, ["stand-in"], shard_size=asked.shard_size, due=PartClock(lambda: self.now_s)
        )
        self.ended = False

    def advance(self, now_s: float) -> None:
        """Plans until it is so late."""
        while not self.ended and self.now_s <= now_s:
            summary = next(self._parts, None)
            self.ended = summary is None
            if summary is not None and summary.num_shards > self._seen:
                self.written.append((self.now_s, self._seen, summary.num_shards))
                self._seen = summary.num_shards

    def more(self, now_s: float) -> tuple[Mapping[int, int], bool]:
        """What is planned by now and was not given before."""
        self.advance(now_s)
        there = [one for one in self.written if one[0] <= now_s]
        self.written = self.written[len(there) :]
        shards = [shard for _, first, stop in there for shard in range(first, stop)]
        return dict.fromkeys(shards, self._asked.shard_size), bool(self.written) or not self.ended

    def examine(self, found: Iterable[InputFile], *_: Any, **__: Any) -> Generator[Examined]:
        """Stands in for reading and hashing."""
        image_s = IMAGE_BYTES / (self._asked.gigabytes_a_second * 1e9)
        for tar in found:
            for number in range(self._asked.images_a_tar):
                self.now_s += image_s
                sha256 = hashlib.sha256(f"{tar.source} {number}".encode()).hexdigest()
                offset = 512 + (IMAGE_BYTES + 512) * number
                yield HashedImage(
                    tar.source, f"sa_{number:08d}.jpg", offset, IMAGE_BYTES, tar.etag, sha256, None
                )
            yield ScannedTar(tar.source, tar.etag, Counter())


class Listing:
    """An InputListing of tars that do not exist."""

    def __init__(self, num_tars: int) -> None:
        self.inputs = ("stand-in",)
        self.skipped: Skipped = Counter()
        self._num_tars = num_tars

    def __iter__(self) -> Iterator[InputFile]:
        for number in range(self._num_tars):
            yield InputFile(f"s3://bucket/part-{number:06d}.tar", "tar", 1 << 30, f"{number:032x}")


def plan_and_work(asked: Asked) -> Outcome:
    """One driver that plans beside its workers."""
    world = World(0)
    calls = counted(world)
    store = world.view("driver")
    planner = Planner(store, asked)
    clock = _Clock()
    with (
        mock.patch("maskmill.storage.plan.make_plan.list_inputs", lambda *_, **__: Listing(asked.tars)),
        mock.patch("maskmill.storage.plan.make_plan.examine", planner.examine),
        announce(store, "generate") as lease,
    ):
        feed = ShardFeed(
            {},
            claims=ShardClaims(store, {"masks": "1" * 16}, lease.driver_id),
            more=lambda: planner.more(clock.now_s),
            clock=clock,
        )
        outcome = _worked([feed], [0.0], asked, clock, {}, planner)
    outcome.parts = sum(bool(PART.fullmatch(name)) for name in world.objects)
    outcome.planned_s = planner.now_s
    outcome.claim_calls = {op: number for op, number in calls.items() if number}
    return outcome


def two_drivers(asked: Asked) -> Outcome:
    """Drivers that share planned shards; all but the first begin later."""
    world, clock = World(0), _Clock()
    calls = counted(world)
    num_shards = asked.tars * asked.images_a_tar // asked.shard_size
    done: dict[int, int] = {}
    with ExitStack() as stack:
        feeds = []
        for number in range(asked.drivers):
            store = world.view(f"driver{number}")
            lease = stack.enter_context(announce(store, "generate"))
            claims = ShardClaims(store, {"masks": "1" * 16}, lease.driver_id) if asked.claims else None
            feeds.append(
                ShardFeed(
                    dict.fromkeys(range(num_shards), asked.shard_size),
                    claims=claims,
                    done=done.keys,
                    clock=clock,
                )
            )
        begins = [number * asked.late_s for number in range(asked.drivers)]
        outcome = _worked(feeds, begins, asked, clock, done, None)
    outcome.claim_calls = dict(calls)
    return outcome


def counted(world: World) -> Counter[str]:
    """Counts the world's calls that claims make: those that name one, and looks at who lives."""
    calls, call = Counter[str](), world.call

    def counting(op: str, what: str, effect: Any) -> Any:
        """As `World.call`."""
        if what.startswith("claims/"):
            calls[op] += 1
        return call(op, what, effect)

    world.call = counting  # type: ignore[method-assign]
    return calls


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _worked(
    feeds: list[ShardFeed],
    begins: list[float],
    asked: Asked,
    clock: _Clock,
    done: dict[int, int],
    planner: Planner | None,
) -> Outcome:
    """Workers ask their driver's feed for a shard, wait as long as it takes, and ask again."""
    dice, outcome = random.Random(0), Outcome()
    gpus = asked.gpus // len(feeds)
    events = [(begin + START_S, n, worker) for n, begin in enumerate(begins) for worker in range(gpus)]
    heapq.heapify(events)
    in_work: dict[tuple[int, int], int] = {}
    todos, foretold = [Todo(feed) for feed in feeds], 0
    told: dict[tuple[int, int], int | None] = {}
    spans: list[tuple[float, float]] = []
    while events:
        clock.now_s, number, worker = heapq.heappop(events)
        finished = in_work.pop((number, worker), None)
        if finished is not None:
            done[finished] = done.get(finished, 0) + 1
        todo = todos[number]
        todo.pull(1, [worker])
        if todo:
            task = todo.task_of(todo.take(worker), worker)
            shard = task.shard
            foretold += shard == told.get((number, worker))
            told[number, worker] = task.likely_next
            takes_s = asked.shard_size * asked.image_s * dice.uniform(0.8, 1.2)
            spans.append((clock.now_s, clock.now_s + takes_s))
            in_work[number, worker] = shard
            heapq.heappush(events, (clock.now_s + takes_s, number, worker))
        elif not feeds[number].ended:
            heapq.heappush(events, (clock.now_s + LOOK_EVERY_S / 5, number, worker))

    work_s = sum(end - begin for begin, end in spans)
    outcome.first_s, last_s = spans[0][0], spans[-1][0]
    outcome.wall_s = max(end for _, end in spans)
    outcome.busy = _busy(spans, outcome.first_s, last_s) / ((last_s - outcome.first_s) * asked.gpus)
    if planner is not None:
        until_s = planner.now_s
        outcome.busy_at_planning = _busy(spans, outcome.first_s, until_s) / (
            (until_s - outcome.first_s) * asked.gpus
        )
    outcome.foretold = foretold / max(1, len(spans) - len(told))
    outcome.shards = len(done)
    outcome.twice = sum(times > 1 for times in done.values())
    once_s = work_s * outcome.shards / len(spans)
    gpu_s = sum(gpus * (outcome.wall_s - begin - START_S) for begin in begins)
    outcome.speed = once_s / gpu_s
    return outcome


def _busy(spans: list[tuple[float, float]], first_s: float, last_s: float) -> float:
    return sum(max(0.0, min(end, last_s) - max(begin, first_s)) for begin, end in spans)


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    plain = Asked()
    for name, default in vars(plain).items():
        if name != "claims":
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--no-claims", dest="claims", action="store_false")
    asked = Asked(**vars(parser.parse_args()))
    with opened_by_address():
        outcome = plan_and_work(asked) if asked.drivers == 1 else two_drivers(asked)
    shown = {
        name: round(found, 4) if isinstance(found, float) else found for name, found in vars(outcome).items()
    }
    print(json.dumps({"asked": vars(asked), "found": shown}, indent=1))


if __name__ == "__main__":
    main()
