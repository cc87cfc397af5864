"""Who looks, sleeps and then writes: nothing decided meanwhile is covered, nothing in use is removed.

Each case is two drivers of the real code. The late one is suspended at every one of its calls to the store in
turn, until the other one has done its work: for so long that its own lease is stale, and for a nap that its
lease outlives, when only the records themselves can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from maskmill.storage.care.garbage import find_garbage, remove_garbage
from maskmill.storage.care.rewrite import rewrite_shard
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset import model_versions as models
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import latest, list_generations, publish_rows
from maskmill.storage.dataset.manifest import row_of
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.dataset.tags import set_tag, tags
from maskmill.storage.drivers.lease import announce
from maskmill.storage.drivers.one_writer import COLLECTOR, WriterBusy, await_collector, writer, writing
from maskmill.storage.errors import LeaseLost, ObjectNotFound, Overtaken
from maskmill.storage.stores.base import ObjectStore
from tests.simulation.machine.world import Driver, SimStore, World
from tests.storage.datasets import (
    CREATED,
    IMAGES,
    MASKS,
    commit_images,
    commit_masks,
    make_dataset,
    plan_pictures,
    publish_all,
)

Work = Callable[[SimStore], object]
MOST_CALLS = 200  # of any late driver here; far fewer are needed
OTHER = "3" * 16


class Sleepy(World):
    """A world whose drivers have heartbeats, or (a nap is too short to lose them) none."""

    beats = True


def at_every_call(
    prepare: Callable[[Sleepy], None], late: Callable[[Sleepy], Work], other: Callable[[Sleepy], Work]
) -> Iterator[tuple[Sleepy, Driver, Driver]]:
    """Worlds in which the late one slept, or napped, at its first call, its second, ... until its last."""
    for beats in (True, False):
        yield from _at_every_call(prepare, late, other, beats)


def _at_every_call(
    prepare: Callable[[Sleepy], None],
    late: Callable[[Sleepy], Work],
    other: Callable[[Sleepy], Work],
    beats: bool,
) -> Iterator[tuple[Sleepy, Driver, Driver]]:
    for call in range(MOST_CALLS):
        world = Sleepy(call)
        world.beats = beats
        prepare(world)
        world.suspend("late", call)
        sleeper, awake = world.add("late", late(world)), world.add("other", other(world))
        world.run()
        yield world, sleeper, awake
        if sleeper.calls < call:
            return
    raise AssertionError("the late driver never ends")


def alone(world: Sleepy, owner: str, work: Work) -> Work:
    """With a heartbeat, as every command has one."""

    def run(store: SimStore) -> object:
        if not world.beats:
            return work(store)
        with announce(store, owner, clock=world.clock):
            return work(store)

    return run


def test_a_late_tag_never_covers_a_newer_one(tmp_path: Path) -> None:
    def prepare(world: Sleepy) -> None:
        store = world.view("before")
        make_dataset(store, str(tmp_path))
        commit_masks(store, _images(store, 0), digits=OTHER)
        publish_all(store, masks=OTHER)

    def move(world: Sleepy, number: int) -> Work:
        return alone(world, "tag", lambda store: set_tag(store, "best", number, created_utc=CREATED))

    told = 0
    for world, late, other in at_every_call(prepare, lambda w: move(w, 1), lambda w: move(w, 2)):
        now = tags(world.view("after"))["best"].generation
        assert other.error is None or isinstance(other.error, Overtaken)
        if isinstance(late.error, Overtaken | LeaseLost):
            told += 1
            assert now == 2, world.history
        else:
            assert late.error is None and not covers(world, "tags/best"), world.history
    assert told > 1, "no sleep fell between its look and its write"


def test_a_late_promotion_never_covers_a_newer_one(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")

    def prepare(world: Sleepy) -> None:
        for _ in range(3):
            models.add_model(world.view("before"), weights, model="nano", trained={}, created_utc=CREATED)
        models.promote(world.view("before"), 1, why="first", created_utc=CREATED)

    def put(world: Sleepy, number: int) -> Work:
        def decide(store: SimStore) -> object:
            over = models.number_of(models.promoted(store))  # a gate looks, measures for hours, promotes
            return models.promote(store, number, why="measured", created_utc=CREATED, over=over)

        return alone(world, "promote", decide)

    told = 0
    for world, late, other in at_every_call(prepare, lambda w: put(w, 2), lambda w: put(w, 3)):
        history = [one.model for one in models.promotions(world.view("after"))]
        if isinstance(late.error, Overtaken | LeaseLost):
            told += 1
            assert history == [1, 3], world.history
        else:
            assert late.error is None and not covers(world, "models/segmenter/promotions"), world.history
            assert other.error is None or isinstance(other.error, Overtaken)
    assert told > 1


def test_a_run_that_slept_makes_no_second_model(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")

    def add(world: Sleepy) -> Work:
        def keep(store: SimStore) -> object:
            return models.add_model(
                store, weights, model="nano", trained={}, created_utc=CREATED, run="the run"
            )

        return alone(world, "retrain", keep)

    for world, late, other in at_every_call(lambda world: None, add, add):
        assert len(models.list_models(world.view("after"))) == 1, world.history
        for driver in (late, other):
            assert driver.error is None or isinstance(driver.error, LeaseLost)


def test_a_late_publication_never_brings_a_repaired_shard_back(tmp_path: Path) -> None:
    """The shard's masks are committed again (a repair) and published while the other one slept."""

    def prepare(world: Sleepy) -> None:
        store = world.view("before")
        plan_pictures(store, str(tmp_path), 8)
        for shard in range(2):
            commit_masks(store, commit_images(store, shard))

    def repair(world: Sleepy) -> Work:
        def again(store: SimStore) -> object:
            commit_again(store, "repaired")
            return publish_all(store)

        return alone(world, "repair", again)

    def publish(world: Sleepy) -> Work:
        def rows_then_generation(store: SimStore) -> object:
            """Rows are read first, as a run does that counts them."""
            made = {"images": IMAGES, "masks": MASKS}
            versions = [ColumnVersion(store, column, digits) for column, digits in made.items()]
            rows = [row_of(version, record) for version in versions for record in version.records()]
            facts = {"columns": made, "settings": {}, "models": {}, "totals": {}}
            in_order = tuple(sorted(rows, key=lambda row: (row.shard, row.column)))
            return publish_rows(store, in_order, facts, CREATED)

        return alone(world, "generate", rows_then_generation)

    for world, late, other in at_every_call(prepare, publish, repair):
        store = world.view("after")
        assert other.error is None or isinstance(other.error, Overtaken), world.history
        assert late.error is None or isinstance(late.error, LeaseLost | Overtaken)
        names = [row.data.name for row in (latest(store) or pytest.fail("none")).rows()]
        assert any("repaired" in name for name in names), world.history
        assert list_generations(store)


def test_a_late_rewrite_never_covers_a_repair(tmp_path: Path) -> None:
    def prepare(world: Sleepy) -> None:
        store = world.view("before")
        plan_pictures(store, str(tmp_path), 4)
        commit_masks(store, commit_images(store, 0))

    def rewrite(world: Sleepy) -> Work:
        def without(store: SimStore) -> object:
            return rewrite_shard(store, 0, without={"000000002"}, created_utc=CREATED)

        return alone(world, "forget", without)

    for world, late, other in at_every_call(
        prepare, rewrite, lambda world: alone(world, "repair", lambda store: commit_again(store, "repaired"))
    ):
        assert other.error is None, world.history
        version = ColumnVersion(world.view("after"), "masks", MASKS)
        record = version.record(0)
        assert record is not None
        assert late.error is None or isinstance(late.error, LeaseLost)
        if late.error is None:
            assert "000000002" not in {sample.key for sample in version.read(record)}, world.history
        repaired = any("repaired" in line and "commits" not in line for line in world.history)
        history = [one for one in version.history(0) if isinstance(one, CommitRecord)]
        assert repaired and len(history) >= 2
        for before, after in pairwise(history):
            assert not after.rewrites or after.rewrites == before.sha256, "made from an older record"


@pytest.mark.parametrize("versions", [False, True])
def test_collection_that_slept_removes_nothing_that_is_used_again(tmp_path: Path, versions: bool) -> None:
    """A version that nothing names is resumed and published while the collector sleeps."""

    def prepare(world: Sleepy) -> None:
        store = world.view("before")
        make_dataset(store, str(tmp_path), 4)
        commit_masks(store, _images(store, 0), digits=OTHER)
        world.now_s += 10 * 86_400

    def collect(world: Sleepy) -> Work:
        def remove(store: SimStore) -> object:
            with writing(store, COLLECTOR, clock=world.clock) as own_id:
                found = find_garbage(store, own_id=own_id, versions=versions, clock=world.clock)
                return remove_garbage(store, found)

        return remove

    def resume(world: Sleepy) -> Work:
        def again(store: SimStore) -> object:
            with announce(store, "generate", clock=world.clock) as lease:
                await_collector(store, lease.driver_id, poll_s=0)
                if ColumnVersion(store, "masks", OTHER).record(0) is None:
                    commit_masks(store, _images(store, 0), digits=OTHER)
                return publish_all(store, masks=OTHER)

        return again

    slept = 0
    for world, late, other in at_every_call(prepare, collect, resume):
        assert other.error is None, (other.error, world.history)
        assert late.error is None or isinstance(late.error, LeaseLost)
        slept += late.error is not None
        report = verify(world.view("after"), deep=True)
        assert not report.damaged and not report.missing, (report.problems, world.history)
    assert slept


def test_two_never_hold_the_writers_lock_though_one_slept_while_taking_it() -> None:
    inside: list[str] = []

    def take(name: str) -> Callable[[Sleepy], Work]:
        def of(world: Sleepy) -> Work:
            def hold(store: SimStore) -> None:
                with writing(store, name, clock=world.clock):
                    inside.append(name)
                    held = writer(store)
                    assert held is None or held.owner == name, held
                    inside.remove(name)

            return hold

        return of

    lost = 0
    for world, late, other in at_every_call(lambda world: None, take("late"), take("other")):
        for driver in (late, other):
            assert driver.error is None or isinstance(driver.error, LeaseLost | WriterBusy), (
                driver.error,
                world.history,
            )
        lost += isinstance(late.error, LeaseLost)
        inside.clear()
    assert lost, "who slept while it took the lock goes on"


def covers(world: World, place: str) -> bool:
    """Whether the late one wrote a record after the other one's, and had looked before it."""
    written = [i for i, line in enumerate(world.history) if f"put_if_absent {place}" in line]
    looked = [i for i, line in enumerate(world.history) if line.startswith(f"late: list {place}")]
    others = [i for i in written if world.history[i].startswith("other")]
    mine = [i for i in written if world.history[i].startswith("late")]
    return bool(others and mine and mine[-1] > others[-1] > looked[0])


def commit_again(store: ObjectStore, attempt: str) -> object:
    """Another record of shard 0's masks, as a repair makes it."""
    version = ColumnVersion(store, "masks", MASKS)
    number = version.next_repair(0)
    first = version.record(0)
    assert first is not None
    name = version.data_name(0, attempt)
    try:
        store.put(name, store.read(first.data.name))
    except ObjectNotFound:
        return None
    data = replace(first.data, name=name)
    return version.commit(replace(first, attempt=attempt, data=data, repair=number, rewrites=""))


def _images(store: ObjectStore, shard: int) -> CommitRecord:
    record = ColumnVersion(store, "images", IMAGES).record(shard)
    assert record is not None
    return record
