"""How busy the pool keeps many workers: `python -m benchmarks.scheduling [--workers 256 --shards 20000
--seconds 2]`.

The pool and Ray are the real ones, all on this machine; the workers are light actors that sleep in place of
a shard's work and import neither torch nor webdataset (about 55 MB each), so that hundreds fit. All workers
are up before the clock starts. Printed as JSON:

    busy            of the workers' time between the first hand-out and the last shard's end
    idle_ms         of a worker's time a shard that isn't work, the end included, where shards run out
    driver_ms       of the driver's CPU time a shard, Ray's threads in it included
    driver_mb       of the driver's memory after each tenth of the shards
    machine         share of all cores that was busy: near 1, the processes wait for cores, not for the driver

What it doesn't know: networks, and what models do to a node.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from maskmill.workers.run.spec import IMAGES, MASKS, Resources, RunSpec, ShardProgress, ShardReport, ShardTask

ONE_CPU = Resources(num_cpus=1)
GENTLY = {
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_maximum_startup_concurrency": "4",
    "RAY_worker_register_timeout_seconds": "900",
}
STARTED_AT_ONCE = 4
"""Hundreds of processes on a few cores must not all start at once."""


class SleepingWorker:
    """What `maskmill.workers.pool.actors.ShardWorker` is to the pool, asleep instead of at work."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def warm(self) -> Any:
        """Nothing to load."""
        import ray

        from maskmill.workers.pool.actors import WorkerInfo

        return WorkerInfo(str(ray.get_runtime_context().get_node_id()), os.getpid(), 0.0)

    def run(self, task: ShardTask) -> ShardReport:
        """A turn."""
        began = time.perf_counter()
        time.sleep(self._seconds)
        return ShardReport(
            shard=task.shard,
            attempt=task.attempt,
            num_images=1,
            num_annotated=1,
            num_masks=1,
            rejects={},
            seconds_by_step={"sleep": self._seconds},
            wall_s=time.perf_counter() - began,
        )

    def progress(self) -> ShardProgress:
        """Nothing to tell."""
        return ShardProgress()


def start_workers(num_workers: int, seconds: float) -> list[Any]:
    """Actors, all of them up."""
    import ray

    from maskmill.workers.pool.actors import Worker

    options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "concurrency_groups": {"watch": 1}}
    remote: Any = ray.remote(**options)(_with_watch(SleepingWorker))
    workers: list[Any] = []
    while len(workers) < num_workers:  # a few at a time: they would all import at once
        more = [remote.remote(seconds) for _ in range(min(STARTED_AT_ONCE, num_workers - len(workers)))]
        workers += [Worker(actor, actor.warm.remote()) for actor in more]
        ray.get([worker.ready for worker in workers])
    return workers


def _with_watch(kind: Any) -> Any:
    import ray

    watch: Any = ray.method(concurrency_group="watch")
    kind.progress = watch(kind.progress)
    return kind


def measure(num_workers: int, num_shards: int, seconds: float) -> dict[str, Any]:
    """One run; see the file's header."""
    from maskmill.flows.services.ray.cluster import connect

    os.environ.update(GENTLY)
    connect(num_cpus=num_workers)
    import ray

    began = time.monotonic()
    workers = start_workers(num_workers, seconds)
    started_s = time.monotonic() - began
    try:
        return {"workers": num_workers, "shards": num_shards, "shard_s": seconds} | {
            "start_s": round(started_s, 1),
            "worker_mb": _memory_mb(ray.get(workers[0].ready).pid),
            **_drive(workers, num_shards),
        }
    finally:
        ray.shutdown()


def _drive(workers: list[Any], num_shards: int) -> dict[str, Any]:
    from maskmill.workers.pool.pool import run_pool
    from maskmill.workers.run.events import ShardDone

    num_workers, waiting = len(workers), iter(workers)
    with tempfile.TemporaryDirectory() as folder:
        spec = RunSpec(
            root=str(Path(folder, "dataset")),
            fingerprints={IMAGES: "0" * 16, MASKS: "1" * 16},
        )
        slept_s, done, rss_mb = 0.0, 0, [_memory_mb(os.getpid())]
        cpu_before, began = time.process_time(), time.monotonic()
        busy_before, all_before = _machine_ticks()
        for event in run_pool(
            spec,
            range(num_shards),
            resources=ONE_CPU,
            num_workers=num_workers,
            make_actor=lambda: next(waiting),
        ):
            if not isinstance(event, ShardDone):
                continue
            done += 1
            slept_s += event.report.wall_s
            if done % max(1, num_shards // 10) == 0:
                rss_mb.append(_memory_mb(os.getpid()))
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_before
        busy_ticks, all_ticks = _machine_ticks()
    return {
        "wall_s": round(wall_s, 2),
        "busy": round(slept_s / (num_workers * wall_s), 4),
        "idle_ms": round((num_workers * wall_s - slept_s) / num_shards * 1000, 1),
        "driver_ms": round(cpu_s / num_shards * 1000, 3),
        "machine": round((busy_ticks - busy_before) / (all_ticks - all_before), 3),
        "shards_per_s": round(num_shards / wall_s, 1),
        "driver_mb": rss_mb,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _machine_ticks() -> tuple[int, int]:
    """Of all cores since the machine started: busy ones, and all."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _memory_mb(pid: int) -> float:
    """A process's share of the memory, in MB: what it shares with others is split among them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise AssertionError("smaps_rollup without Pss")


def main() -> None:
    """Reads the sizes and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--shards", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    print(json.dumps(measure(given.workers, given.shards, given.seconds), indent=1))


if __name__ == "__main__":
    main()
