"""The simulated store keeps every promise that `maskmill probe` asks of a real one."""

from __future__ import annotations

import pytest

from maskmill.storage.stores import suite
from maskmill.storage.stores.suite import PROMISES, Promise
from tests.simulation.machine.world import World


@pytest.mark.parametrize("promise", PROMISES, ids=[one.name for one in PROMISES])
def test_it_keeps(promise: Promise, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0)

    def sleep(seconds: float) -> None:
        world.now_s += seconds

    monkeypatch.setattr(suite.time, "sleep", sleep)
    promise.check(world.view("probe"))
