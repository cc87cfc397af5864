"""Who works on a simulated dataset: every command that writes, as its run does it, over the real code.

    generate    a driver and its workers, each a process of its own; a worker outlives its driver
    generate in parts   one that plans beside the work, and claims shards
    relabel     the same under other settings, one process, the writer's lock held
    forget, gc, repair, tag, promote, export, and a person who reviews a picture

Models are stand-ins, pictures a few pixels; plans, turns at a shard, commits, publishing and care are the
product's. A command that fails is given again by its user, twice.

It does not know: Prefect and Ray, who only say when such a step is taken.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.runs.steps.planning import pending_shards
from maskmill.flows.runs.steps.planning_ahead import alone_planning, feed_of
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.storage.care.damage import find_damage
from maskmill.storage.care.forget import forget
from maskmill.storage.care.garbage import find_garbage, remove_garbage
from maskmill.storage.care.rewrite import settle_and_publish
from maskmill.storage.dataset import model_versions as models
from maskmill.storage.dataset.generations import latest, list_generations
from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.dataset.tags import set_tag
from maskmill.storage.drivers import lease as leases
from maskmill.storage.drivers import one_writer
from maskmill.storage.drivers.lease import announce
from maskmill.storage.errors import LeaseLost, OutOfSpace, Recalled, StorageError
from maskmill.storage.plan.make_plan import make_plan, plan_parts
from maskmill.storage.plan.plan import load_plans
from maskmill.workers.exports.export import export
from maskmill.workers.exports.report import ExportError
from maskmill.workers.jobs.repair import in_process, repair
from maskmill.workers.reviews.keep import Work, begin, keep
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.fakes import FakeMasks, build_fake_stages
from tests.simulation.crew import Hand, Planner
from tests.simulation.machine.one_thread import CREATED
from tests.simulation.machine.store import SimStore
from tests.simulation.machine.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUTS = "sim://inputs"
SHARD_SIZE = 2
FIRST, OTHER = "1" * 16, "2" * 16
TURNS = 3  # at a shard, then it is given up
TRIES = 3  # of a command, by whoever typed it

Actor = Callable[["Scene", SimStore], object]


@dataclass
class Scene:
    """What actors share beyond the store, to be looked at afterwards.

    Attributes:
        world: theirs.
        inside: who holds the writer's lock, with the lease that says whether it still may.
        forgotten: keys that a `forget` which returned was asked for.
        broken: promises that an actor saw broken itself.
        workers: how many a driver of `generate` has.
        saved: key and id of saves that a person was told are kept.
        spoiled: an object that the store has lost by itself.
    """

    world: World
    workers: int = 1
    inside: dict[str, leases.Lease] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    saved: set[tuple[str, str]] = field(default_factory=set)
    spoiled: str = ""

    @contextmanager
    def writing(self, store: SimStore, owner: str) -> Iterator[str]:
        """The writer's lock; notes where two hold it."""
        wait = {
            "wait_s": 300.0,
            "poll_s": 20.0,
            "clock": self.world.clock_of(store),
            "sleep": self.world.sleep,
        }
        with one_writer.writing(store, owner, **wait) as own_id:  # type: ignore[arg-type]
            lease = next(one for one in leases._held[store] if one.driver_id == own_id)
            for name, other in self.inside.items():
                if not other.is_lost:
                    self.broken.append(f"{owner} holds the writer's lock beside {name}")
            self.inside[f"{owner} ({store.root})"] = lease
            try:
                settle(store)
                yield own_id
            finally:
                self.inside.pop(f"{owner} ({store.root})", None)


def spec_of(store: SimStore, masks: str = FIRST) -> RunSpec:
    """A run; `masks` is which settings it has."""
    return RunSpec(root=store.root, fingerprints={IMAGES: "0" * 16, MASKS: masks})


def stages_of(spec: RunSpec) -> Any:
    """A worker's, with a stand-in for the model."""
    return build_fake_stages(spec, FakeMasks())


@cache
def config() -> RunConfig:
    """Settings that generations keep; the runs' own are `spec_of`'s."""
    return load_config("nano")


@cache
def picture(number: int) -> bytes:
    """A PNG of a few pixels: it is not kept where it is, the dataset holds a JPEG of it."""
    pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def settle(store: SimStore) -> None:
    """As every run begins (flows/runs/steps/holding.py)."""
    settle_and_publish(store, created_utc=CREATED)


# A driver and its workers


def generate(scene: Scene, store: SimStore, masks: str = FIRST) -> None:
    """Plans, has its workers make what lacks, publishes and verifies."""
    world, spec = scene.world, spec_of(store, masks)
    with announce(store, "generate", clock=world.clock_of(store)) as lease:
        one_writer.await_collector(store, lease.driver_id, poll_s=20.0, sleep=world.sleep)
        settle(store)
        make_plan(store, [INPUTS], shard_size=SHARD_SIZE)
        todo = sorted(pending_shards(spec))
        workers = [
            world.add(
                f"{_name(store)}.w{number}",
                lambda own, n=number: work(own, masks, todo[n :: scene.workers]),
                hired=True,
            )
            for number in range(min(scene.workers, len(todo)))
        ]
        while not all(worker.ended for worker in workers):
            lease.check()
            world.sleep(2.0)
        leases.check_lease(store)
        publish_and_verify(spec, config())


def generate_in_parts(scene: Scene, store: SimStore, masks: str = FIRST) -> None:
    """The same with a planner beside the work, and claims that tell other drivers what is in hand."""
    world, spec = scene.world, spec_of(store, masks)
    with announce(store, "generate", clock=world.clock_of(store)) as lease:
        one_writer.await_collector(store, lease.driver_id, poll_s=20.0, sleep=world.sleep)
        settle(store)
        planner = Planner(world.add(f"{_name(store)}.p", lambda own: plan_in_parts(scene, store)))
        own = next(one for one in world.drivers if one.store is store)
        own.mates, planner.thread.mates = [planner.thread], [own]
        feed = feed_of(spec, planner, clock=world.clock)
        pause_s, handed = 2.0, set[int]()
        crew = [Hand(lambda own, shard: work(own, masks, [shard])) for _ in range(scene.workers)]
        seats = [world.add(f"{_name(store)}.h{n}", crew[n].pull(world), hired=True) for n in range(len(crew))]
        try:
            while not feed.ended or any(hand.shards for hand in crew):
                for hand, seat in zip(crew, seats, strict=True):
                    if seat.ended and hand.shards:
                        feed.give_up(hand.shards.pop())
                    if not (seat.ended or hand.shards) and (shard := feed.next()) is not None:
                        hand.shards.append(shard)
                if all(seat.ended for seat in seats):
                    break
                lease.check()
                pause_s = min(60.0, 1.5 * pause_s) if handed == feed.shards.keys() else 2.0
                handed = set(feed.shards)
                world.sleep(pause_s)
        finally:
            for hand in crew:
                hand.dismissed = True
        planner.check()
        leases.check_lease(store)
        publish_and_verify(spec, config())


def plan_in_parts(scene: Scene, store: SimStore) -> None:
    """A driver's planning thread: a part of the plan for every shard."""
    with alone_planning(store, scene.world.sleep):
        for _ in plan_parts(store, [INPUTS], shard_size=SHARD_SIZE, due=lambda: True):
            pass


def work(store: SimStore, masks: str, shards: list[int]) -> None:
    """A worker's process: its turns at shards, as the pool hands them out."""
    stages = stages_of(spec_of(store, masks))
    for shard in shards:
        _turns(stages, shard)


def _turns(stages: Any, shard: int) -> None:
    for turn in range(TURNS):
        try:
            run_shard(stages, ShardTask(shard=shard, attempt=new_attempt()))
            return
        except (LeaseLost, OutOfSpace):
            raise
        except StorageError:
            if turn == TURNS - 1:
                return


def relabel(scene: Scene, store: SimStore) -> None:
    """Other masks of what is there, shard by shard, published over what was."""
    with scene.writing(store, "relabel"):
        spec = spec_of(store, OTHER)
        if not load_plans(store).parts:
            return
        stages = stages_of(spec)
        for shard in sorted(pending_shards(spec)):
            _turns(stages, shard)
        publish_and_verify(spec, config(), made_by="relabel", partial=True)


# Care


def forgetting(key: str) -> Actor:
    """A `forget` of one image."""

    def run(scene: Scene, store: SimStore) -> None:
        """See `forget`."""
        if not load_plans(store).num_shards:
            return
        forget(store, [key], created_utc=CREATED, clock=scene.world.clock_of(store))
        scene.forgotten.add(key)

    return run


def collect(scene: Scene, store: SimStore) -> None:
    """Finds and removes garbage."""
    if not load_plans(store).parts:
        return
    with scene.writing(store, one_writer.COLLECTOR) as own_id:
        remove_garbage(store, find_garbage(store, own_id=own_id))


def collect_versions(scene: Scene, store: SimStore) -> None:
    """The same, settings that were tried and left included."""
    if not load_plans(store).parts:
        return
    with scene.writing(store, one_writer.COLLECTOR) as own_id:
        remove_garbage(store, find_garbage(store, own_id=own_id, versions=True))


def mend(scene: Scene, store: SimStore) -> None:
    """`verify --repair --deep`."""
    if not load_plans(store).parts:
        return
    also = spec_of(store).fingerprints
    found = find_damage(store, deep=True, also=also)
    with scene.writing(store, "repair"):
        specs = [spec_of(store, digits) for digits in (FIRST, OTHER)]
        repair(store, specs, in_process(stages_of), deep=True, created_utc=CREATED, found=found, also=also)


# Small records, readers


def tag(scene: Scene, store: SimStore) -> None:
    """Names the latest generation."""
    numbers = list_generations(store)
    if numbers:
        with announce(store, "tag", clock=scene.world.clock_of(store)):
            set_tag(store, "best", numbers[-1], created_utc=CREATED)


def promote(scene: Scene, store: SimStore) -> None:
    """Adds a model and puts it in force."""
    with announce(store, "promote", clock=scene.world.clock_of(store)):
        card = models.add_model(
            store, weights_file(), model="nano", trained={}, created_utc=CREATED, run=store.root
        )
        models.promote(store, card.number, why="measured", created_utc=CREATED)


def weights_file() -> Path:
    """Bytes that stand for weights."""
    return Path(__file__)


def reviewing(key: str) -> Actor:
    """A person opens a picture, and saves what they made of it until the store has it."""

    def run(scene: Scene, store: SimStore) -> None:
        """A page knows its own save again."""
        generation = latest(store)
        if generation is None:
            return
        image = {"image_id": int(key), "width": 16, "height": 16, "file_name": f"{key}.jpg"}
        start = begin(
            store,
            key,
            record={"image": image, "annotations": []},
            generation=generation.number,
            blank=True,
        )
        work = Work(who=_name(store), tool="page", masks=[], finished=True, save_id=_name(store))
        try:
            keep(store, start, work, created_utc=CREATED)
        except Recalled:
            return
        scene.saved.add((key, work.save_id))

    return run


def exporting(scene: Scene, store: SimStore) -> None:
    """Writes the latest generation out, elsewhere."""
    generation = latest(store)
    if generation is not None and generation.rows():
        export(store, generation, f"sim://out-{_name(store)}/{generation.number}", format="sa1b")


def _name(store: SimStore) -> str:
    return store.root.removeprefix("sim://data-")


# Given again where it failed


def persistent(scene: Scene, actor: Actor) -> Callable[[SimStore], object]:
    """A user who types the command again where it failed, after a while, twice."""

    def run(store: SimStore) -> object:
        """Until it returns."""
        for attempt in range(TRIES):
            try:
                return actor(scene, store)
            except (StorageError, ExportError):
                if attempt == TRIES - 1:
                    raise
                scene.world.sleep(200.0)
        raise AssertionError

    return run


KINDS: dict[str, Actor] = {
    "generate": generate,
    "generate in parts": generate_in_parts,
    "relabel": relabel,
    "forget": forgetting("000000002"),
    "forget more": forgetting("000000003"),
    "gc": collect,
    "gc versions": collect_versions,
    "repair": mend,
    "tag": tag,
    "review": reviewing("000000001"),
    "review of forgotten": reviewing("000000002"),
    "promote": promote,
    "export": exporting,
}
