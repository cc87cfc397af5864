"""Joins a Ray cluster or starts one on this machine, and says how many workers fit on it.

A cluster started here listens on the loopback address alone, asks for a token, sends no usage statistics,
has no dashboard, and ends with the driver. A cluster that is joined keeps its own rules; it must have the
same maskmill installed, and the driver its token.

Ray is imported late: a run with nothing to do never pays for it. `ray.init` is called on the main thread,
because a cluster started on another takes 15 s to leave.

It doesn't know what else runs on the cluster: Ray queues what doesn't fit.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.services.ray.address import ClusterError as ClusterError
from maskmill.flows.services.ray.address import check_joinable, connect_advice
from maskmill.flows.services.ray.lean import lean_node
from maskmill.flows.services.surroundings import settle
from maskmill.pipeline.settings.memory import GB
from maskmill.workers.run.memory import worker_bytes
from maskmill.workers.run.spec import Resources, RunSpec

if TYPE_CHECKING:
    from maskmill.workers.pool.actors import Worker
    from maskmill.workers.stages.build import Stages

_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
_LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
OBJECT_STORE_BYTES = 128 * 2**20  # workers exchange reports of a few kilobytes, never images

MOST_CPUS_A_GPU = 4.0
"""Decoding and encoding for one GPU keep no more threads busy."""

START_TRIES = 3
"""Ray gives its own agents 15 s to start, fixed in its code; a second try finds them warm."""

_CONNECT_ERRORS = (ConnectionError, RuntimeError, ValueError, TimeoutError)


@dataclasses.dataclass(frozen=True)
class Crew:
    """How many workers run at once, and what each takes."""

    num_workers: int
    resources: Resources


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Ray is connected inside the block: as it was, or joined at `address`, or started here and ended after.

    Raises:
        ClusterError: no cluster answers at `address`, or none could be started.
    """
    prepare_environment(address)
    import ray

    if ray.is_initialized():
        yield
        return
    connect(address)
    try:
        yield
    finally:
        _warm.clear()
        ray.shutdown()


def connect(address: str | None = None, *, num_cpus: int | None = None, num_gpus: int | None = None) -> None:
    """Joins the cluster at `address` (see ray_address.py), or starts one on this machine's loopback address.

    Args:
        num_cpus, num_gpus: what a started cluster should believe to have; None is what the machine has.

    Raises:
        ClusterError: as `connected`.
    """
    prepare_environment(address)
    import ray
    from ray.exceptions import RayError

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        check_joinable(address)
        options["address"] = address
    if address is None or "://" not in address:
        from maskmill.workers.pool.own_path import OwnPath

        options["job_config"] = OwnPath()
    for tries_left in reversed(range(START_TRIES)):
        try:
            with lean_node() if address is None else nullcontext():
                ray.init(**options)
            return
        except Exception as exc:  # a node that doesn't start in time is a bare Exception
            if type(exc) is not Exception and not isinstance(exc, (*_CONNECT_ERRORS, RayError)):
                raise
            ray.shutdown()
            late = isinstance(exc, ConnectionAbortedError)  # the process that the head starts for ray://
            if (address is not None and not late) or not tries_left:
                raise ClusterError(connect_advice(address, exc)) from exc
            watcher().note("Ray did not start in time, as on a busy machine; trying again")


def start_again() -> None:
    """A new cluster on this machine in place of the one that this process started, whose processes ended.

    Raises:
        ClusterError: it could not be started.
    """
    import ray

    forget_warm()
    ray.shutdown()
    connect()


def plan_crew(config: RunConfig, nodes: Sequence[Mapping[str, float]] | None = None) -> Crew:
    """How many workers run, and what each takes: one per GPU, else as many as memory and CPUs hold.

    Args:
        config: [run] workers asks for a number; [segmenter] device and model decide what a worker needs.
        nodes: of each, Ray's names to amounts (CPU, GPU, memory in bytes); None asks the connected cluster.

    Raises:
        ClusterError: the device asked for is not on the cluster.
    """
    if nodes is None:
        from maskmill.workers.run.nodes import node_resources

        nodes = node_resources()
    gpu_nodes = [node for node in nodes if node.get("GPU", 0.0) >= 1]
    wants_gpu = config.segmenter.device.startswith("cuda")
    if wants_gpu and not gpu_nodes and not config.run.autoscale:
        raise ClusterError(
            f"segmenter.device = {config.segmenter.device!r}, but the cluster has no GPU: "
            "use segmenter.device=auto, or join a cluster with --ray-address"
        )
    if wants_gpu or (gpu_nodes and config.segmenter.device == "auto"):
        return _gpu_crew(config, gpu_nodes)
    if not any(node.get("CPU") for node in nodes):
        raise ClusterError("the cluster has no CPU to give: start Ray's nodes with --num-cpus")
    return _cpu_crew(config, nodes)


def most_workers(config: RunConfig, crew: Crew) -> int | None:
    """The pool's limit: None lets it grow with nodes that join, where nothing but CPUs and GPUs limits it."""
    from maskmill.workers.run.nodes import room_for

    follows_nodes = config.run.workers is None and room_for(crew.resources) == crew.num_workers
    return None if follows_nodes else crew.num_workers


def cpu_crew(config: RunConfig) -> Crew:
    """A CPU each on any node, as many as there are or as [run] workers asks for.

    Raises:
        ClusterError: the cluster has no CPU.
    """
    from maskmill.workers.run.nodes import node_resources

    cpus = sum(int(node.get("CPU", 0.0)) for node in node_resources())
    if not cpus:
        raise ClusterError("the cluster has no CPU to give: start Ray's nodes with --num-cpus")
    return Crew(config.run.workers or cpus, Resources(num_cpus=1))


def _gpu_crew(config: RunConfig, nodes: Sequence[Mapping[str, float]]) -> Crew:
    """A GPU each, or an equal part of one, and its share of the CPUs of the node with the fewest a GPU."""
    gpus = sum(int(node["GPU"]) for node in nodes)
    workers = config.run.workers or max(1, gpus)
    workers_per_gpu = 1 if config.run.autoscale else max(1, math.ceil(workers / gpus))
    cpus = min((node.get("CPU", 0.0) / int(node["GPU"]) for node in nodes), default=MOST_CPUS_A_GPU)
    return Crew(
        workers,
        Resources(
            num_cpus=_rounded(min(cpus / workers_per_gpu, MOST_CPUS_A_GPU)),
            num_gpus=_rounded(1 / workers_per_gpu),
        ),
    )


def _cpu_crew(config: RunConfig, nodes: Sequence[Mapping[str, float]]) -> Crew:
    """As many as fit with a CPU and the model's memory each, sharing all CPUs; or the number asked for."""
    need = worker_bytes(config.column_sections())
    cpus = [node.get("CPU", 0.0) for node in nodes]
    fits = [min(int(node.get("CPU", 0.0)), int(node.get("memory", GB) // need)) for node in nodes]
    share = min((total / n for total, n in zip(cpus, fits, strict=True) if n), default=max(cpus))
    workers = config.run.workers
    if workers is None or config.run.autoscale:
        return Crew(workers or max(1, sum(fits)), Resources(num_cpus=_rounded(share)))
    shares = sorted({_rounded(total / n) for total in cpus if total for n in range(1, workers + 1)})
    return Crew(workers, Resources(num_cpus=_largest_that_fits(shares, cpus, workers)))


def _largest_that_fits(shares: Sequence[float], cpus: Sequence[float], workers: int) -> float:
    """The largest share of which the nodes hold `workers`; the smallest if none does."""
    fitting = [share for share in shares if sum(int(total / share + 1e-9) for total in cpus) >= workers]
    return max(fitting, default=min(shares))


def warm_up(spec: RunSpec, crew: Crew) -> None:
    """Starts a worker ahead of its shard, so that its models load while other things start; returns at once.

    One, not the whole crew: loading takes 9 s of a core, and on a small machine a second one would hold up
    the first image.
    """
    from maskmill.workers.pool.actors import start_worker

    _warm.append((spec, crew.resources, start_worker(spec, crew.resources)))


def worker_source(
    spec: RunSpec, resources: Resources, build: Callable[[RunSpec], Stages] | None = None
) -> Callable[[], Worker]:
    """What gives the pool its workers: those that were warmed up for this spec first, then new ones.

    Args:
        build: as `maskmill.workers.pool.actors.start_worker` has it.
    """
    from maskmill.workers.pool.actors import start_worker

    def next_worker() -> Worker:
        """One warmed up for the same work, else a new one; others that wait are dismissed."""
        while _warm:
            warmed_spec, warmed_resources, worker = _warm.popleft()
            if (warmed_spec, warmed_resources) == (spec, resources):
                return worker
            _dismiss(worker)
        return start_worker(spec, resources, build)

    return next_worker


def dismiss_warm() -> None:
    """Ends the workers that were warmed up and never needed."""
    while _warm:
        _dismiss(_warm.popleft()[2])


def forget_warm() -> None:
    """Of workers whose Ray is gone: nobody is there to end them."""
    _warm.clear()


_warm: deque[tuple[RunSpec, Resources, Worker]] = deque()  # a process has one Ray, so one waiting room


def loopback_environment() -> None:
    """For whoever starts Ray's nodes by other means: the loopback address alone, a token, no statistics."""
    prepare_environment(None)


def prepare_environment(address: str | None) -> None:
    """What Ray reads from the environment to start or join a cluster. It reads it once, at import: later,
    what it has is left as it is.

    Args:
        address: as `connected` has it.
    """
    if "ray" not in sys.modules:
        for line in settle():
            watcher().note(line)
        for name, value in {**_ENVIRONMENT, **(_LOOPBACK_ONLY if _is_loopback(address) else {})}.items():
            os.environ.setdefault(name, value)


def _dismiss(worker: Worker) -> None:
    import ray

    ray.kill(worker.actor)


def _rounded(share: float) -> float:
    """Whole units where there are enough, else a fraction, rounded down to hundredths."""
    if share >= 1:
        return float(int(share + 1e-9))
    return max(0.01, int(share * 100 + 1e-9) / 100) if share else 0.0


def _is_loopback(address: str | None) -> bool:
    if address is None:
        return True
    host = address.rpartition("://")[2].rpartition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
