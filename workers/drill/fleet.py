"""Ray's nodes on this machine, each with a raylet of its own, and the processes on them to be killed.

The head has no CPUs, so workers run on nodes that can be lost; the drivers are attached to the head.
What it doesn't know: other machines. Everything listens on the loopback address.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from maskmill.workers.pool.actors import ShardWorker

START_TRIES = 5
"""Ray gives a node's helpers 15 s to start, fixed in its code; a busy machine may take more tries."""

_SMALL = {"object_store_memory": 80 * 2**20}
_QUICK = {
    "_system_config": {
        "health_check_period_ms": 1000,
        "health_check_timeout_ms": 5000,
        "health_check_failure_threshold": 5,
    }
}
"""Ray notices a lost node within about five seconds."""

_TITLE = f"ray::{ShardWorker.__name__}"


class Fleet:
    """A cluster while the context lasts.

    Args:
        num_nodes: beside the head.
        num_cpus: of each of them.
        environment: of what runs on them, beside this process's own.
    """

    def __init__(self, num_nodes: int, num_cpus: int, environment: Mapping[str, str]) -> None:
        self._num_nodes, self._num_cpus, self._environment = num_nodes, num_cpus, environment
        self._cluster: Any = None
        self._wounded: Any = None

    def __enter__(self) -> Fleet:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=False)
        _patiently(lambda: self._cluster.add_node(num_cpus=0, include_dashboard=False, **_SMALL, **_QUICK))
        for _ in range(self._num_nodes):
            self.add_node()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """What drivers join."""
        return str(self._cluster.address)

    @property
    def num_missing(self) -> int:
        """Nodes that were killed and not replaced yet."""
        return self._num_nodes - len(self._cluster.worker_nodes)

    def add_node(self) -> None:
        """A node joins; takes some seconds."""
        with _variables(self._environment):
            _patiently(lambda: self._cluster.add_node(num_cpus=self._num_cpus, **_SMALL))

    def kill_node(self, rng: random.Random) -> bool:
        """SIGKILLs a raylet and its helpers; its workers find out by themselves. False if there is none."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: str(node.unique_id))
        if nodes:
            self._cluster.remove_node(rng.choice(nodes), allow_graceful=False)
        return bool(nodes)

    def kill_worker(self, rng: random.Random) -> bool:
        """SIGKILLs an actor's process. False if there is none."""
        workers = self.workers()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                return True
        return False

    def kill_control_service(self) -> None:
        """SIGKILLs Ray's control service: no driver or node can go on without it."""
        os.kill(self._cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)

    def begin_again(self) -> None:
        """Ends what is left of the cluster, and starts another one."""
        self._cluster.shutdown()
        self.__enter__()

    def kill_agent(self, rng: random.Random) -> bool:
        """SIGKILLs an agent of a raylet, which takes the raylet along. False if none is found."""
        nodes = [node for node in self._cluster.worker_nodes if _agents(node)]
        if not nodes:
            return False
        self._wounded = rng.choice(sorted(nodes, key=lambda node: str(node.unique_id)))
        os.kill(rng.choice(_agents(self._wounded)), signal.SIGKILL)
        return True

    def replace_wounded(self) -> None:
        """Another node in place of the one whose agent was killed."""
        node, self._wounded = self._wounded, None
        if node in self._cluster.worker_nodes:
            self._cluster.remove_node(node, allow_graceful=False)
            self.add_node()

    def workers(self) -> list[int]:
        """The processes of live nodes' actors, loading or at work."""
        raylets = {
            info.process.pid for node in self._cluster.worker_nodes for info in node.all_processes["raylet"]
        }
        return [pid for pid in _processes() if _parent(pid) in raylets and _title(pid).startswith(_TITLE)]


def _agents(node: Any) -> list[int]:
    """The processes of a node's raylet that serve it."""
    raylets = {info.process.pid for info in node.all_processes["raylet"]}
    return [pid for pid in _processes() if _parent(pid) in raylets and "agent" in _title(pid)]


def _patiently(start: Callable[[], object]) -> None:
    for tries_left in reversed(range(START_TRIES)):
        try:
            start()
            return
        except Exception as exc:  # a node that doesn't start in time is a bare Exception
            known = type(exc) is Exception or isinstance(exc, RuntimeError | TimeoutError | ConnectionError)
            if not known or not tries_left:
                raise


def _processes() -> list[int]:
    return sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """The environment has these inside the block; children inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
