"""Planning beside the work: shards come while the rest is looked through; what fails is told at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maskmill.flows.config import load_config
from maskmill.flows.runs.steps import planning_ahead as steps
from maskmill.flows.runs.steps.planning_ahead import alone_planning, feed_of, planning_ahead
from maskmill.storage.drivers import shard_feed
from maskmill.storage.drivers.lease import announce
from maskmill.storage.drivers.shard_claims import FOLDER, PLANNING, ShardClaims
from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.storage.errors import InputError, StoreUnavailable
from maskmill.storage.plan import cutting, make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import RunSpec
from tests.workers.published import make_spec, write_inputs

CONFIG = load_config(sets=["run.shard_size=2"])


class SlowInputs:
    """Inputs whose fifth image takes until it is let through, or cannot be reached at all."""

    def __init__(self) -> None:
        self.through, self.breaks = threading.Event(), False
        self.examine = make_plan.examine

    def __call__(self, *args: Any, **more: Any) -> Iterator[Any]:
        for number, one in enumerate(self.examine(*args, **more)):
            if number == 5:
                assert self.through.wait(30)
                if self.breaks:
                    raise StoreUnavailable("the inputs' store doesn't answer")
            yield one


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowInputs:
    slow = SlowInputs()
    monkeypatch.setattr(make_plan, "examine", slow)
    monkeypatch.setattr(cutting, "PART_S", 0.0)  # a part for every shard
    monkeypatch.setattr(cutting, "LONGER", 0.0)
    monkeypatch.setattr(steps, "PART_S", 0.0)
    for module in (steps, shard_feed):
        monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    return slow


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    write_inputs(tmp_path / "inputs")
    return make_spec(tmp_path / "dataset")


def rest_of(feed: ShardFeed) -> Iterator[int]:
    while not feed.ended:
        shard = feed.next()
        if shard is None:
            time.sleep(0.01)
        else:
            yield shard


def test_the_first_shards_go_out_while_the_rest_is_planned(
    slow: SlowInputs, spec: RunSpec, tmp_path: Path
) -> None:
    with announce(open_store(spec.root), "generate"), ahead_of(spec, tmp_path) as ahead:
        ahead.wait(spec)
        feed = feed_of(spec, ahead)
        shards = rest_of(feed)
        assert [next(shards), next(shards)] == [0, 1]
        assert ahead.going and not feed.complete and load_plans(open_store(spec.root)).num_images == 4
        slow.through.set()
        assert list(shards) == [2, 3, 4]
        ahead.tell()
    assert sum(feed.shards.values()) == load_plans(open_store(spec.root)).num_images == 10


def ahead_of(spec: RunSpec, folder: Path) -> Any:
    return planning_ahead(spec.root, [str(folder / "inputs")], CONFIG, None)


def test_what_is_planned_is_worked_before_planning_fails_the_run(
    slow: SlowInputs, spec: RunSpec, tmp_path: Path
) -> None:
    slow.breaks = True
    with ahead_of(spec, tmp_path) as ahead:
        ahead.wait(spec)
        feed = feed_of(spec, ahead)
        slow.through.set()
        assert list(rest_of(feed)) == [0, 1]
        with pytest.raises(StoreUnavailable, match="the inputs' store"):
            ahead.tell()


def test_a_run_that_ends_early_ends_its_planner(slow: SlowInputs, spec: RunSpec, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ahead_of(spec, tmp_path) as ahead:
        ahead.wait(spec)
        threading.Timer(0.5, slow.through.set).start()  # its next input comes when it has been told to end
        raise KeyboardInterrupt
    assert not ahead.going
    assert load_plans(open_store(spec.root)).num_images < 10, "it didn't go on to the end"


def test_inputs_that_cannot_be_used_fail_at_once(spec: RunSpec, tmp_path: Path) -> None:
    absent = [str(tmp_path / "absent")]
    with (
        planning_ahead(spec.root, absent, CONFIG, None) as ahead,
        pytest.raises(InputError, match="does not exist"),
    ):
        ahead.wait(spec)


def test_one_driver_plans_at_a_time(spec: RunSpec) -> None:
    store = open_store(spec.root)
    pauses: list[float] = []
    with announce(store, "generate") as other:
        theirs = ShardClaims(store, PLANNING, other.driver_id)
        assert theirs.take(0)
        with announce(store, "generate"):

            def pause(seconds: float) -> None:
                pauses.append(seconds)
                if len(pauses) == 2:
                    theirs.release(0)

            with alone_planning(store, pause):
                assert len(pauses) == 2 and not theirs.take(0)
            assert list(store.list(f"{FOLDER}/")) == []
