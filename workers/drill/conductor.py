"""Carries a drill out: rounds of new pictures, drivers that are started again and again, faults as work goes
on, peace at the end, and then the comparison with the undisturbed job.

    for each round: new inputs; a driver runs until it says that all is done
        a fault is due whenever another part of the round's shards is done; after a stall one is due anyway
    no more faults: a last driver completes the dataset
    verify --deep; compare with the same job undisturbed
    damage objects at rest: verify must name each; repair, verify and compare again

Two drivers at most run at a time. What a fault met is counted where it happened (orders.py).
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from maskmill.storage.care.verify import verify
from maskmill.storage.clock import now_utc
from maskmill.storage.errors import InputError
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore, join_address
from maskmill.storage.stores.open import is_remote, open_store
from maskmill.workers.drill import schedule as kinds
from maskmill.workers.drill.damage import damage_objects
from maskmill.workers.drill.drivers import Drivers
from maskmill.workers.drill.fleet import Fleet
from maskmill.workers.drill.inputs import write_part
from maskmill.workers.drill.job import DriverJob
from maskmill.workers.drill.orders import Order, Orders
from maskmill.workers.drill.proxy import running_proxy
from maskmill.workers.drill.same import Difference, compare, work_in_peace, work_undisturbed
from maskmill.workers.drill.schedule import Round, make_schedule
from maskmill.workers.drill.stages import drill_spec
from maskmill.workers.drill.upsets import names
from maskmill.workers.drill.upsets.beside import Beside
from maskmill.workers.drill.upsets.conduct import Upsets
from maskmill.workers.drill.upsets.records import try_damages
from maskmill.workers.drill.values import DrillReport, DrillSettings, Progress
from maskmill.workers.jobs.repair import RepairReport, repair

SHARD_SIZE = 4
SHARDS_A_FAULT = 1.3
MIN_SHARDS = 12
UPSET_PACE = 3.0  # how much longer an image takes: there must be somebody at work to be upset
SPREAD = 0.85  # of a round's shards, over which its faults are spread
STALL_S = 6.0  # without a shard done, after which the next fault is due anyway
REPLACE_S = 3.0  # after which a killed node is replaced
MAX_OPEN = 3  # orders that wait to be met
MAX_CRASHES = 5
MAX_IDLE_ENDS = 4  # drivers in a row that end without having completed or done anything, undisturbed
MAX_FRUITLESS_ENDS = 25  # the same among faults
GRACE_S = 300.0  # after the time is up, to complete in peace
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def run_drill(
    settings: DrillSettings, driver: Sequence[str], tell: Callable[[str], None] = lambda text: None
) -> DrillReport:
    """Runs a drill; bounded by `minutes` and some more to complete and compare.

    Args:
        settings: what to do.
        driver: the command that starts a driver; its job is appended as JSON.
        tell: hears how it goes.

    Raises:
        InputError: the place is taken, or the store isn't on loopback.
        ValueError: too few faults.
    """
    began = time.monotonic()
    _check_free(settings)
    drill = _Drill(settings, driver, tell)
    drill.disturb()

    tell("the same job undisturbed, and every byte of both")
    difference, undetected = drill.judge()
    faults = drill.faults()
    plan = drill.plan_size()

    return DrillReport(
        seed=settings.seed,
        dataset=settings.dataset,
        faults=dict(sorted(faults.items())),
        num_faults=sum(faults.values()),
        lost=difference.lost,
        duplicated=difference.duplicated,
        different=difference.different,
        undetected=undetected,
        images=plan[0],
        shards=plan[1],
        drivers=dict(sorted(drill.drivers.ends.items())),
        problems=(*difference.problems, *drill.problems, *drill.drivers.crashes),
        seconds=round(time.monotonic() - began, 1),
    )


class _Drill:
    def __init__(self, settings: DrillSettings, driver: Sequence[str], tell: Callable[[str], None]) -> None:
        self.settings = settings
        self.problems: list[str] = []
        self.drivers = Drivers(driver, settings.scratch / "drivers")
        self._tell = tell
        self._rng = random.Random(settings.seed)
        self._is_upset = settings.kinds == kinds.UPSETS
        self._schedule = make_schedule(
            settings.seed, settings.num_faults, s3=is_remote(settings.dataset), kinds=settings.kinds
        )
        self._orders = Orders(settings.scratch / "orders")
        self._inputs = str(settings.scratch / "inputs")
        if settings.store is not None:
            self._inputs = f"{settings.store.rstrip('/')}-inputs"
        self._parts: list[str] = []
        self._environment: dict[str, str] = {}
        self._kills = Counter[str]()
        self._num_poison = self._num_damaged = self._num_hurt = 0
        self._records_hurt: Mapping[str, int] = {}
        beside = Beside(driver, settings.scratch, open_store(settings.dataset), self._rng)
        self._fleet: Fleet | None = None
        self._upsets = Upsets(self.drivers, beside, self._rng, self._start)
        self._replace_at: float | None = None
        self._ends_at = time.monotonic() + settings.minutes * 60

    # The disturbed job

    def disturb(self) -> None:
        """All rounds; afterwards the dataset is complete, or a problem says why not."""
        with ExitStack() as stack:
            if is_remote(self.settings.dataset):
                proxy = stack.enter_context(running_proxy(_endpoint(), self._orders))
                self._environment = {name: proxy for name in ENDPOINTS if name in os.environ}
            self._tell("starting Ray's nodes")
            fleet = stack.enter_context(
                Fleet(self.settings.num_nodes, self.settings.num_cpus, self._environment)
            )
            stack.callback(self.drivers.kill_all)
            stack.callback(self._upsets.beside.kill_all)
            self._fleet = fleet

            left: list[Order] = []
            number = 0
            for i, planned in enumerate(self._schedule.rounds):
                orders = [Order(number + j, kind) for j, kind in enumerate(planned.faults)]
                number += len(orders)
                self._add_part(i, planned)
                self._tell(f"round {i + 1} of {len(self._schedule.rounds)}: {len(left) + len(orders)} faults")
                left = self._work(fleet, deque([*left, *orders]))
            self._orders.withdraw()
            if self._is_upset:
                self._tell("peace, and the last word on what was to be forgotten")
                self._upsets.settle()

    def _add_part(self, i: int, planned: Round) -> None:
        """New pictures: locally, or through the undisturbed store."""
        name = f"part-{i:02d}"
        folder = self.settings.scratch / "inputs" / name
        num_shards = max(MIN_SHARDS, round(SHARDS_A_FAULT * len(planned.faults)))
        write_part(
            folder,
            seed=self.settings.seed * 1000 + i,
            num_images=num_shards * SHARD_SIZE,
            num_poison=planned.num_poison,
            num_damaged=planned.num_damaged,
        )
        if self._is_upset:
            self._upsets.beside.prepare(folder)
        self._num_poison += planned.num_poison
        self._num_damaged += planned.num_damaged
        if self.settings.store is not None:
            store = open_store(self._inputs)
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                store.put(f"{name}/{path.relative_to(folder)}", path.read_bytes())
        self._parts.append(join_address(self._inputs, name))

    def _work(self, fleet: Fleet, todo: deque[Order]) -> list[Order]:
        """Drivers until one says that all is done and none is left; returns the faults that found no time."""
        total, progress = len(todo), Progress()
        injected_at, fruitless = time.monotonic(), 0
        while True:
            # What happened since the last look
            before = len(progress.done)
            for event in self.drivers.take_events():
                progress.see(event)
            ends = self.drivers.take_ends()
            if len(progress.done) > before:
                fruitless = 0
            fruitless += len(ends)

            # The end, or a driver and its nodes
            peace = not todo and not self._orders.num_open()
            if self._is_over(ends, fruitless, MAX_IDLE_ENDS if peace else MAX_FRUITLESS_ENDS):
                break
            self._upsets.look(fleet)
            if not self.drivers.num_live() and self._upsets.may_drive:
                self.drivers.start(self._job(fleet), self._environment)
            self._replace_nodes(fleet)

            # The next fault, when one is due
            now = time.monotonic()
            if now > self._ends_at:
                todo.clear()
                self._orders.withdraw()
            due = 1 + total * min(1.0, progress.fraction / SPREAD)
            stalled = now - max(progress.moved, injected_at) > STALL_S
            if todo and (total - len(todo) < due or stalled) and self._inject(fleet, todo):
                injected_at = now
            time.sleep(0.05)
        return [*self._orders.withdraw(), *todo]

    def _is_over(self, ends: Sequence[str], fruitless: int, patience: int) -> bool:
        if "complete" not in ends and ends and fruitless >= patience:
            self.problems.append(f"drivers cannot complete the dataset any more: {', '.join(ends)}")
            self.drivers.kill_all()
            return True
        if len(self.drivers.crashes) >= MAX_CRASHES or time.monotonic() > self._ends_at + GRACE_S:
            self.problems.append("the job was not completed in time, or its drivers kept crashing")
            self.drivers.kill_all()
            return True
        return "complete" in ends and not self.drivers.num_live()

    def _job(self, fleet: Fleet) -> DriverJob:
        return DriverJob(
            dataset=self.settings.dataset,
            inputs=list(self._parts),
            shard_size=SHARD_SIZE,
            address=fleet.address,
            workers=self.settings.workers,
            seconds=self.settings.seconds * (UPSET_PACE if self._is_upset else 1.0),
            deadline_s=60.0,
            orders=str(self._orders.folder),
            events=str(self.drivers.events_folder),
            build=self.settings.build,
            upset=self._is_upset,
        )

    def _start(self) -> tuple[DriverJob, Mapping[str, str]]:
        """What a command beside the job is started with."""
        assert self._fleet is not None
        return self._job(self._fleet), self._environment

    # Faults

    def _inject(self, fleet: Fleet, todo: deque[Order]) -> bool:
        """The next fault that is possible now; False if none is."""
        for _ in range(len(todo)):
            order = todo.popleft()
            if self._carry_out(fleet, order):
                return True
            todo.append(order)
        return False

    def _carry_out(self, fleet: Fleet, order: Order) -> bool:
        if order.kind in names.WEIGHTS and order.kind != names.CLOCK_JUMP:
            return self._upsets.carry_out(fleet, order)
        if order.kind not in kinds.KILLS:
            if self._orders.num_open() >= MAX_OPEN:
                return False
            self._orders.give(order)
            return True
        done = self._kill(fleet, order.kind)
        self._kills[order.kind] += done
        return done

    def _kill(self, fleet: Fleet, kind: str) -> bool:
        if kind == kinds.WORKER_KILL:
            return fleet.kill_worker(self._rng)
        if kind == kinds.DRIVER_KILL:
            return self.drivers.kill_one(self._rng)
        if kind == kinds.SECOND_DRIVER:
            if self.drivers.num_live() != 1:
                return False
            self.drivers.start(self._job(fleet), self._environment)
            return True
        if fleet.num_missing or not fleet.kill_node(self._rng):
            return False
        self._replace_at = time.monotonic() + REPLACE_S
        return True

    def _replace_nodes(self, fleet: Fleet) -> None:
        if self._replace_at is not None and time.monotonic() > self._replace_at:
            self._replace_at = None
            fleet.add_node()

    def faults(self) -> Counter[str]:
        """What happened, by kind."""
        inputs = Counter(
            {
                kinds.POISON_IMAGE: self._num_poison,
                kinds.DAMAGED_INPUT: self._num_damaged,
                kinds.DAMAGED_OBJECT: self._num_hurt,
            }
        )
        upsets = self._upsets.done + Counter(self._records_hurt)
        return +(self._kills + self._orders.taken() + inputs + upsets)

    # The judgement

    def judge(self) -> tuple[Difference, int]:
        """What differs from the undisturbed job; how many objects damaged at rest go unnoticed."""
        store = open_store(self.settings.dataset)
        undisturbed = open_store(str(self.settings.scratch / "undisturbed"))
        work_undisturbed(undisturbed.root, self._parts, SHARD_SIZE)
        self.problems += verify(store, deep=True).problems[:10]
        self.problems += [*self._upsets.problems, *self._upsets.beside.crashes]
        forgotten = self._upsets.beside.forgotten
        difference = compare(store, undisturbed, forgotten=forgotten)
        if difference != Difference() or self.problems:
            return difference, 0  # a dataset that is broken already proves nothing about repair
        unnoticed = self._damage(store)
        self.problems += [f"not repaired: {left}" for left in self._repair(store).left]
        self.problems += verify(store, deep=True).problems[:10]
        if self._schedule.damaged_records:
            self._tell("records damaged at rest, one after another")
            told = try_damages(store, self._schedule.damaged_records, self._rng, lambda: self._repair(store))
            self._records_hurt, unnoticed = told.num_hurt, unnoticed + told.undetected
            self.problems += told.problems
        return compare(store, undisturbed, forgotten=forgotten), unnoticed

    def _repair(self, store: ObjectStore) -> RepairReport:
        specs = [drill_spec(store.root), drill_spec(store.root, revision=2)]
        return repair(store, specs, work_in_peace, deep=True, created_utc=now_utc())

    def _damage(self, store: ObjectStore) -> int:
        """Damages objects at rest; returns how many of them verify doesn't name."""
        hurt = damage_objects(store, self._schedule.num_damaged_objects, self._rng)
        self._num_hurt = len(hurt)
        named = "\n".join(verify(store, deep=True).problems)
        unnoticed = [place for place in hurt if place.name not in named]
        self.problems += [f"verify does not name {place.name}, which was {place.how}" for place in unnoticed]
        return len(unnoticed)

    def plan_size(self) -> tuple[int, int]:
        """Images and shards."""
        plan = load_plans(open_store(self.settings.dataset))
        return plan.num_images, plan.num_shards


def _check_free(settings: DrillSettings) -> None:
    if settings.scratch.exists() and any(settings.scratch.iterdir()):
        raise InputError(f"{settings.scratch}: is not empty; a drill needs a new folder")
    if settings.store is not None:
        if is_remote(settings.store):
            _endpoint()
        for place in (settings.store, f"{settings.store.rstrip('/')}-inputs"):
            store: ObjectStore = open_store(place)
            if next(iter(store.list()), None) is not None:
                raise InputError(f"{place}: is not empty; a drill needs a new place")
    settings.scratch.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(settings.scratch).free < 1 << 30:
        raise InputError(f"{settings.scratch}: less than 1 GB is free")


def _endpoint() -> str:
    """The store's address: this machine's own, and plain HTTP, for the proxy to stand before it."""
    found = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")
    if not found.startswith(("http://127.0.0.1:", "http://localhost:")):
        raise InputError(
            f"a drill disturbs a store on this machine only: set {ENDPOINTS[0]} to its address, such as "
            f"http://127.0.0.1:8000{f' (it is {found})' if found else ''}"
        )
    return found
