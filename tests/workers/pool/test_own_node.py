"""A joined cluster's control service that goes: it is waited for, then the run ends and says how to go on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from ray._private import worker

from maskmill.workers.pool import own_node
from maskmill.workers.pool.own_node import check_own_node
from maskmill.workers.run.events import ClusterLost, NodeLost, RunStopped


def joined(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """This process has joined the cluster there, as `ray.init(address=...)` leaves it."""
    node = SimpleNamespace(is_head=lambda: False, gcs_address=address, dead_processes=list)
    monkeypatch.setattr(worker, "_global_node", node)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield found


def address_of(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_service_that_listens_costs_nothing(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.listen()
    joined(monkeypatch, address_of(listener))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    for _ in range(20):
        check_own_node()


def test_one_that_is_gone_ends_the_run_by_a_sentence(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined(monkeypatch, address_of(listener))
    monkeypatch.setattr(own_node, "SILENT_S", 0.2)
    monkeypatch.setattr(own_node, "LOOK_EVERY_S", 0.01)
    with pytest.raises(ClusterLost, match="run the same command again") as lost:
        check_own_node()
    assert address_of(listener) in str(lost.value)
    assert isinstance(lost.value, RunStopped) and not isinstance(
        lost.value, NodeLost
    )  # nobody starts it again


def test_one_that_comes_back_in_time_is_gone_on_with(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined(monkeypatch, address_of(listener))
    monkeypatch.setattr(own_node, "LOOK_EVERY_S", 0.01)
    back = threading.Timer(0.1, listener.listen)
    back.start()
    check_own_node()
    back.join()


def test_rays_own_deadline_is_later() -> None:
    """With the last look's own wait, our sentence comes before Ray ends the process."""
    assert own_node.SILENT_S + own_node.LOOK_TIMEOUT_S + own_node.LOOK_EVERY_S < 50
