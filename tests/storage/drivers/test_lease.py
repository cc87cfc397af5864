from __future__ import annotations

import logging
import os
import time

import pytest

from maskmill.storage.drivers.lease import Lease, announce, others
from maskmill.storage.errors import StoreUnavailable
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store


def test_a_driver_is_seen_while_it_runs(store: ObjectStore) -> None:
    assert others(store) == []
    with announce(store, "generate") as lease:
        (found,) = others(store)
        assert (found.driver_id, found.owner, found.pid) == (lease.driver_id, "generate", os.getpid())
        assert others(store, own_id=lease.driver_id) == []
        with announce(store, "export"):
            assert [info.owner for info in others(store, own_id=lease.driver_id)] == ["export"]
    assert others(store) == []
    assert list(store.list()) == []


def test_beats_go_on(local_store: ObjectStore) -> None:
    with announce(local_store, "generate", interval_s=0.02):
        (first,) = others(local_store)
        deadline_s = time.monotonic() + 10
        while others(local_store)[0].beat_s == first.beat_s:
            assert time.monotonic() < deadline_s, "no further beat"
            time.sleep(0.02)


def beat_was_s_ago(store: ObjectStore, lease: Lease, age_s: float) -> None:
    """By the clock of the disk."""
    then = time.time() - age_s
    os.utime(f"{store.root}/drivers/{lease.driver_id}.json", (then, then))


def test_a_driver_that_stopped_beating_is_dead(local_store: ObjectStore) -> None:
    with announce(local_store, "generate", interval_s=15) as lease:
        beat_was_s_ago(local_store, lease, 5 * 15 + 55)
        assert len(others(local_store)) == 1
        beat_was_s_ago(local_store, lease, 5 * 15 + 65)
        assert others(local_store) == []


@pytest.mark.parametrize("ahead_s", [180.0, 86_400.0, -86_400.0])
def test_clocks_of_two_machines_are_never_held_against_each_other(
    local_store: ObjectStore, ahead_s: float
) -> None:
    def wrong() -> float:
        return time.time() + ahead_s

    with announce(local_store, "generate", clock=wrong) as lease:
        (seen,) = others(local_store)
        assert abs(seen.started_s - time.time()) < 30, "by the store's time"
        with announce(local_store, "forget") as own:
            assert len(others(local_store, own_id=own.driver_id)) == 1
        beat_was_s_ago(local_store, lease, 500)
        assert others(local_store) == [], "a dead one is dead, however late its clock was"


def test_the_looker_s_own_clock_does_not_matter(
    local_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    with announce(local_store, "generate") as lease:
        monkeypatch.setattr("maskmill.storage.drivers.lease.time.time", lambda: now() + 3600)
        assert [info.driver_id for info in others(local_store)] == [lease.driver_id]
        monkeypatch.undo()


def test_nonsense_among_the_heartbeats_is_passed_over(
    local_store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    local_store.put("drivers/x.json", b"{")
    local_store.put("drivers/probe-1", b"")
    with caplog.at_level(logging.WARNING):
        assert others(local_store) == []
    assert "drivers/x.json is no heartbeat" in caplog.text


def test_a_store_that_is_gone_does_not_end_the_work(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(f"{s3_bucket}/x")
    with announce(store, "generate"):
        monkeypatch.setattr(type(store), "delete", _unavailable)
    assert "it will expire" in caplog.text


def _unavailable(store: ObjectStore, name: str) -> None:
    raise StoreUnavailable("gone")
