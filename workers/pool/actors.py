"""The thin ray shell around process.py: one actor, its models loaded once, one shard at a time.

An actor never restarts and a call is never retried by ray: who does a shard again, and how often, is the
driver's to decide (pool.py). `progress` answers from a thread of its own while a shard is in work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray

from maskmill.workers.run.spec import Resources, RunSpec, ShardProgress, ShardReport, ShardTask

if TYPE_CHECKING:
    from maskmill.workers.stages.build import Stages

QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""No worker calls home or talks where nobody listens."""


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker is, once its models are loaded."""

    node_id: str
    pid: int
    seconds_to_load: float


@dataclass(frozen=True, eq=False)
class Worker:
    """A started actor.

    Attributes:
        actor: ray's handle.
        ready: will be its `WorkerInfo`, or the error that its models could not be loaded by.
    """

    actor: Any
    ready: Any


class ShardWorker:
    """What runs in the actor's process.

    Args:
        spec: of the run.
        build: makes its stages; None is `maskmill.workers.stages.build.build_stages`.
    """

    def __init__(self, spec: RunSpec, build: Callable[[RunSpec], Stages] | None) -> None:
        from maskmill.workers.shard.meter import Meter

        os.environ.update(QUIET)  # not by a runtime_env: ray could not use its prestarted processes then
        self._spec = spec
        self._build = build
        self._meter = Meter()
        self._stages: Stages | None = None

    def warm(self) -> WorkerInfo:
        """Loads the models; later calls find them loaded."""
        began = time.perf_counter()
        if self._stages is None:
            import pyarrow.parquet  # noqa: F401  (slow ones: now, not within the first shard)

            from maskmill.workers.stages.build import build_stages

            self._stages = (self._build or build_stages)(self._spec)
        node_id = str(ray.get_runtime_context().get_node_id())
        return WorkerInfo(node_id, os.getpid(), round(time.perf_counter() - began, 3))

    def run(self, task: ShardTask) -> ShardReport:
        """One turn at a shard; see `maskmill.workers.shard.turn.run_shard`."""
        from maskmill.workers.shard.turn import run_shard

        if self._stages is None:
            self.warm()
        assert self._stages is not None
        return run_shard(self._stages, task, self._meter)

    @ray.method(concurrency_group="watch")
    def progress(self) -> ShardProgress:
        """Where the shard in work stands."""
        return self._meter.progress()


def start_worker(
    spec: RunSpec, resources: Resources, build: Callable[[RunSpec], Stages] | None = None
) -> Worker:
    """Starts an actor and has it load its models; returns at once, before either is done.

    Args:
        spec: of the run; where it leaves the model's threads open, they are the whole CPUs of `resources`.
        resources: what ray sets aside for it.
        build: makes its stages; None is `maskmill.workers.stages.build.build_stages`.
    """
    if spec.segmenter.threads is None:
        segmenter = replace(spec.segmenter, threads=resources.threads)
        spec = replace(spec, settings=spec.settings.having(segmenter))

    options: dict[str, Any] = {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "max_restarts": 0,
        "max_task_retries": 0,
        "concurrency_groups": {"watch": 1},
        "scheduling_strategy": "SPREAD",  # over the nodes: each has its own memory, network and decoders
    }
    remote: Any = ray.remote(**options)(ShardWorker)
    actor = remote.remote(spec, build)
    return Worker(actor, actor.warm.remote())
