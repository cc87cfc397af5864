"""What the simulation found that nobody knew of, each as the shortest story that leads there.

Seeds mean other schedules whenever actors change; these stay.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from maskmill.storage.care.forget import forget
from maskmill.storage.care.verify import verify
from maskmill.storage.drivers.lease import announce
from maskmill.storage.drivers.one_writer import COLLECTOR, await_collector
from maskmill.storage.errors import LeaseLost
from tests.simulation import actors
from tests.simulation.actors import CREATED, FIRST, INPUTS, OTHER, Scene, picture
from tests.simulation.machine.fates import DAY_S
from tests.simulation.machine.invariants import look
from tests.simulation.machine.one_thread import one_thread
from tests.simulation.machine.world import STALE_S, World
from tests.simulation.play import alone, generate_alone

KEY = "000000002"


@pytest.fixture
def world() -> Iterator[World]:
    """A dataset of two shards, made and published."""
    found = World(0)
    with one_thread(random.Random(0)):
        place = found.spaces.setdefault(INPUTS.removeprefix("sim://"), {})
        place |= {f"{number}.png": (picture(number), found.now_s) for number in range(4)}
        alone(found.view("past"))
        yield found


def lose(world: World, prefix: str) -> None:
    """A disk forgets what begins so."""
    names = [name for name in world.objects if name.startswith(prefix)]
    assert names
    for name in names:
        del world.objects[name]


@pytest.mark.parametrize("column", [f"images/{'0' * 16}", f"masks/{FIRST}"])
def test_a_lost_tar_of_a_forgotten_image_keeps_nobody_from_repairing(world: World, column: str) -> None:
    """Seeds 3, 9, 12, 20, 131: every command ended before it began, `verify --repair` too."""
    store = world.view("user")
    lose(world, f"{column}/data/000000.")
    forget(store, [KEY], created_utc=CREATED, clock=world.clock)
    actors.settle(store)
    actors.mend(Scene(world), store)
    generate_alone(world, store)
    assert verify(store, deep=True).ok and look(world.objects).sound


def test_lost_objects_of_other_settings_keep_no_image_from_being_forgotten(world: World) -> None:
    """Seeds 6, 271, 381; and 297: nothing repaired what the latest generation has not."""
    store = world.view("user")
    actors.work(store, OTHER, [0])
    lose(world, f"masks/{OTHER}/data/")
    forget(store, [KEY], created_utc=CREATED, clock=world.clock)
    assert look(world.objects).sound and verify(store, deep=True).ok


def test_settings_that_are_not_in_force_are_repaired_where_they_are_given(world: World) -> None:
    """Seed 297: the latest generation has other masks; `generate` named a repair that found nothing."""
    store, scene = world.view("user"), Scene(world)
    actors.relabel(scene, store)
    lose(world, f"masks/{FIRST}/data/000000.")
    forget(store, [KEY], created_utc=CREATED, clock=world.clock)
    actors.mend(scene, store)
    generate_alone(world, store)
    assert verify(store, deep=True).ok and look(world.objects).sound


def test_who_slept_while_it_waited_for_a_collection_is_told(world: World) -> None:
    """Seed 122: its own last beat was as old as the dead collector's, which lived for ever by it."""
    collector, late = world.view("gc"), world.view("late")
    with (
        announce(collector, COLLECTOR, clock=world.clock),
        announce(late, "generate", clock=world.clock) as mine,
    ):

        def sleep(seconds: float) -> None:
            world.now_s += STALE_S  # the machine's lid is closed

        with pytest.raises(LeaseLost):
            await_collector(late, mine.driver_id, sleep=sleep)


def test_weights_whose_writer_was_killed_are_collected(world: World) -> None:
    """Seeds 118, 204: `verify` says that `maskmill gc` removes them."""
    store = world.view("user")
    store.put("models/segmenter/000001/weights.0123456789abcdef.safetensors", b"half of a model")
    assert any("maskmill gc" in problem for problem in verify(store).problems)
    world.now_s += 2 * DAY_S
    actors.collect(Scene(world), store)
    assert verify(store).ok


def test_a_lost_manifest_is_told_of(world: World) -> None:
    """`verify` ended in an error."""
    store = world.view("user")
    lose(world, "generations/000001/manifest.")
    report = verify(store, deep=True)
    assert any("manifest" in problem for problem in report.problems)
