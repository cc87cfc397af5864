"""One writer at a time: refused, waited for, passed over when dead, decided in a race."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maskmill.storage.drivers.one_writer import WriterBusy, writer, writing
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "data")


def test_a_second_writer_is_refused_with_the_reason(store: ObjectStore) -> None:
    with writing(store, "relabel"):
        sentence = r"relabel on .*, process \d+, works on this dataset since"
        with pytest.raises(WriterBusy, match=sentence), writing(store, "retrain"):
            raise AssertionError("two writers at once")
        held = writer(store)
        assert held is not None and held.owner == "relabel"
    assert writer(store) is None
    with writing(store, "retrain"):
        pass


def test_a_second_writer_waits_if_told_to(store: ObjectStore) -> None:
    order, told = [], []
    entered = threading.Event()

    def first() -> None:
        with writing(store, "relabel"):
            entered.set()
            time.sleep(0.3)
            order.append("first")

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(first)
        entered.wait()
        with writing(store, "retrain", wait_s=20, poll_s=0.02, waiting=told.append):
            order.append("second")
        running.result()
    assert order == ["first", "second"]
    assert len(told) == 1 and "relabel" in told[0]


def test_of_many_at_once_one_works_at_a_time(store: ObjectStore) -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def work(_: int) -> None:
        nonlocal inside, most
        with writing(store, "relabel", wait_s=60, poll_s=0.01):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(12)))
    assert most == 1
    assert len(list(store.list("locks/"))) <= 3


def test_a_writer_that_was_killed_is_passed_over(store: ObjectStore) -> None:
    code = (
        "import sys, time\nfrom maskmill.storage.stores.open import open_store\n"
        "from maskmill.storage.drivers.one_writer import writing\n"
        "with writing(open_store(sys.argv[1]), 'relabel'):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, store.root], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert other.stdout is not None
    with other, other.stdout as out:
        assert out.readline() == b"in\n"
        with pytest.raises(WriterBusy), writing(store, "relabel"):
            pass
        other.kill()
        other.wait()
    with writing(store, "relabel"):
        pass


def test_a_hold_whose_heartbeat_is_gone_does_not_count(store: ObjectStore) -> None:
    dead = {"driver_id": "gone", "owner": "relabel", "host": "elsewhere", "pid": 1, "taken_s": 0.0}
    store.put("locks/writer/000041.json", json.dumps(dead).encode())
    assert writer(store) is None
    with writing(store, "relabel"):
        held = writer(store)
        assert held is not None and held.driver_id != "gone"
