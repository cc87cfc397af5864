"""Two drivers, a forget and a collection over two shards, in every order in which one of them is interrupted
once.

Each actor in turn is stopped before its first call, its second, ... its last, while the others run to their
ends one after the other, in each of their orders; then it goes on: at once, and after so long that it counts
as dead. All of these are played by `make simulate` (some 1,300, two minutes of CPU), so what breaks by one
interruption cannot pass; `make test` stops them at every sixth of their calls.

It does not know: what takes two interruptions; the seeds of test_schedules.py come upon those.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
from collections.abc import Iterator
from functools import cache

import pytest

from tests.simulation import actors, play
from tests.simulation.actors import INPUTS, KINDS, Scene, persistent, picture
from tests.simulation.machine.fates import DAY_S
from tests.simulation.machine.invariants import Watch
from tests.simulation.machine.one_thread import one_thread
from tests.simulation.machine.store import SimStore
from tests.simulation.machine.world import World

CAST = {"first": "generate", "second": "generate", "forget": "forget", "gc": "gc versions"}
MOST_CALLS = 400
STRIDE = int(os.environ.get("SIMULATE_STRIDE", "6"))


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@cache
def begun() -> dict[str, bytes]:
    """The first shard made under two settings, nothing published."""

    def work(store: SimStore) -> None:
        """Both."""
        actors.make_plan(store, [INPUTS], shard_size=actors.SHARD_SIZE)
        actors.work(store, actors.FIRST, [0])
        actors.work(store, actors.OTHER, [0])

    return play.made_by(work, 3)


def at(stopped: str, call: int, others: tuple[str, ...], *, stale: bool) -> tuple[World, list[str], bool]:
    """One order; what is wrong with it, and whether the stopped one was stopped at all."""
    world = World(0)
    world.one_by_one = True
    scene, watch = Scene(world), Watch(objects=world.objects)
    world.on_change = watch.change
    with one_thread(random.Random(0)):
        place = world.spaces.setdefault(INPUTS.removeprefix("sim://"), {})
        place |= {f"{number}.png": (picture(number), world.now_s) for number in range(3)}
        store = world.view("past")
        for name, data in begun().items():
            store.put(name, data)
        world.now_s += 10 * DAY_S
        place["3.png"] = (picture(3), world.now_s)
        (world.suspend if stale else world.nap)(stopped, call)
        for name in (stopped, *others):
            world.add(name, persistent(scene, KINDS[CAST[name]]))
        world.run()
        reached = next(one for one in world.drivers if one.name == stopped).calls > call
        wrong = [*play.judged(world, scene), *play.aftermath(world, scene), *watch.broken, *scene.broken]
    play._forget_caches()
    return world, wrong, reached


@pytest.mark.parametrize("stopped", CAST)
def test_no_single_interruption_breaks_a_promise(stopped: str) -> None:
    played = 0
    orders = list(itertools.permutations(name for name in CAST if name != stopped))
    for call in range(0, MOST_CALLS, STRIDE):
        order, stale = orders[call // STRIDE % len(orders)], call // STRIDE % 2 == 0
        for others in {order, orders[(call // STRIDE + 1) % len(orders)]}:
            world, wrong, reached = at(stopped, call, others, stale=stale)
            assert not wrong, "\n".join([*wrong, f"{stopped} at {call}, then {others}", *world.history])
            played += 1
        if not reached:
            break
    else:
        raise AssertionError("it never ends")
    assert played > 10
