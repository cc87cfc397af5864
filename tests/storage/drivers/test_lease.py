from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from maskmill.storage.drivers import lease, store_time
from maskmill.storage.drivers.lease import announce, others, own_id
from maskmill.storage.errors import AccessDenied, StoreUnavailable
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


def test_a_store_is_let_go_with_the_last_lease_on_it(local_store: ObjectStore) -> None:
    """A process that writes to one dataset after the other would keep all of their stores."""
    with announce(local_store, "generate"):
        with announce(local_store, "export"):
            pass
        assert own_id(local_store) is not None, "the first goes on"
    assert local_store not in lease._held


def test_beats_go_on(local_store: ObjectStore) -> None:
    with announce(local_store, "generate", interval_s=0.02):
        (first,) = others(local_store)
        deadline_s = time.monotonic() + 60  # as busy as the machine may be
        while others(local_store)[0].beat_s == first.beat_s:
            assert time.monotonic() < deadline_s, "no further beat"
            time.sleep(0.02)


DAY_S = 86_400.0


@pytest.mark.parametrize("clock_off_s", [0.0, 180.0, -180.0, DAY_S, -DAY_S])
@pytest.mark.parametrize("asked_with_a_beat", [True, False])
def test_a_driver_that_stopped_beating_is_dead_whatever_its_clock_says(
    local_store: ObjectStore, clock_off_s: float, asked_with_a_beat: bool
) -> None:
    """Ages are the store's: a dead driver whose clock ran ahead holds nobody up, a living one is seen."""
    own = announce(local_store, "forget", clock=lambda: time.time() - clock_off_s)
    with announce(local_store, "generate", clock=lambda: time.time() + clock_off_s) as lease, own:
        own_id = own.driver_id if asked_with_a_beat else None
        beat = Path(local_store.root) / f"drivers/{lease.driver_id}.json"
        for age_s, alive in ((0, True), (120, True), (140, False)):
            os.utime(beat, (time.time() - age_s,) * 2)
            found = {info.owner for info in others(local_store, own_id=own_id)} - {"forget"}
            assert found == ({"generate"} if alive else set()), age_s


def test_when_a_driver_began_is_the_stores_time_too(local_store: ObjectStore) -> None:
    passed_s = 0.0
    with announce(local_store, "generate", clock=lambda: time.time() + DAY_S + passed_s) as lease:
        passed_s = 50.0
        lease.beat()
        (found,) = others(local_store)
        assert abs(found.begun_s - (time.time() - 50)) < 5


def test_a_clock_that_is_set_neither_ends_a_lease_nor_keeps_it(
    local_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with announce(local_store, "generate") as lease:
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert not lease.is_lost
        monkeypatch.setattr(store_time, "_running_s", lambda: time.monotonic() + DAY_S)  # it slept
        assert lease.is_lost


def test_the_lookers_own_clock_does_not_matter(
    local_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with announce(local_store, "generate"):
        running_s = store_time._running_s
        monkeypatch.setattr(store_time, "_running_s", lambda: running_s() + DAY_S)
        assert [info.owner for info in others(local_store)] == ["generate"]
        monkeypatch.undo()


def test_who_may_only_read_judges_by_its_own_clock(
    local_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with announce(local_store, "generate"):
        monkeypatch.setattr(type(local_store), "put", _denied)
        assert [info.owner for info in others(local_store)] == ["generate"]


def _denied(store: ObjectStore, name: str, data: bytes) -> None:
    raise AccessDenied("may only read")


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
