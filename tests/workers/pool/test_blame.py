"""What is held against a shard, and what is taken back."""

from __future__ import annotations

import pytest

from maskmill.workers.pool import blame as history
from maskmill.workers.pool.blame import Doubt, Doubts, History
from maskmill.workers.run.in_hand import Announcement
from maskmill.workers.run.spec import MASKS

IMAGE, OTHER = Announcement(MASKS, "000000001"), Announcement(MASKS, "000000002")


def test_two_deaths_make_a_shard_run_image_by_image() -> None:
    shard = History(7)
    assert not shard.next_task().one_by_one
    shard.died(None)
    assert not shard.next_task().one_by_one
    shard.died(None)
    task = shard.next_task()
    assert (task.shard, task.one_by_one, dict(task.skip_keys)) == (7, True, {})
    assert (shard.attempts, shard.counted) == (3, 2)


def test_an_image_is_left_out_after_killing_again_and_again_without_a_pause() -> None:
    shard = History(0)
    for _ in range(history.DEATHS_TO_BLAME_AN_IMAGE - 1):
        assert shard.died(IMAGE)
        assert not shard.is_blamed(IMAGE)
    shard.died(OTHER)  # IMAGE was survived meanwhile, as OTHER comes after it
    shard.died(IMAGE)
    assert not shard.is_blamed(IMAGE)
    for _ in range(history.DEATHS_TO_BLAME_AN_IMAGE):
        shard.died(OTHER)
    assert shard.next_task().skip_keys == {OTHER.key: MASKS}
    assert shard.counted == 0, "naming an image is progress"


def test_blame_outlives_the_deaths_of_others() -> None:
    shard = History(0)
    for image in (IMAGE, OTHER):
        for _ in range(history.DEATHS_TO_BLAME_AN_IMAGE):
            shard.died(image)
    assert set(shard.next_task().skip_keys) == {IMAGE.key, OTHER.key}


def test_a_shard_full_of_killers_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_BLAMED_IMAGES", 1)
    shard = History(0)
    for _ in range(history.DEATHS_TO_BLAME_AN_IMAGE):
        assert shard.died(IMAGE)
    assert not shard.died(OTHER) and shard.counted == 1


def test_a_lost_nodes_death_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shard, doubts = History(0), Doubts()
    shard.died(None)
    doubts.add(Doubt(shard, "node", None, "died", waits=True))
    assert doubts and doubts.hold_shards
    assert doubts.settle({"node"}) == [] and doubts
    (settled,) = doubts.settle({"another"})
    assert settled.history is shard and not doubts
    assert (shard.deaths, shard.counted) == (0, 0)


def test_a_death_on_a_node_that_stays_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    shard, doubts = History(0), Doubts()
    for _ in range(history.DEATHS_TO_BLAME_AN_IMAGE):
        shard.died(IMAGE)
    doubts.add(Doubt(shard, "node", IMAGE, "died", waits=True))
    monkeypatch.setattr(history, "NODE_VERDICT_S", 0.0)
    assert len(doubts.settle({"node"})) == 1 and shard.is_blamed(IMAGE)


def test_blame_in_doubt_is_taken_back_too() -> None:
    shard, doubts = History(0), Doubts()
    for _ in range(history.DEATHS_TO_BLAME_AN_IMAGE):
        shard.died(IMAGE)
    doubts.add(Doubt(shard, "node", IMAGE, "died", waits=True))
    doubts.settle(set())
    assert not shard.is_blamed(IMAGE)
