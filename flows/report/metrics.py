"""A run's numbers as Prometheus reads them, over HTTP.

Images, masks, rejects by reason, seconds by step, shards waiting and in work, workers, GPU memory by worker;
each with the run's name and its dataset. The page is on the loopback address unless MASKMILL_METRICS_HOST
says otherwise. Runs beside each other on one machine take the next ports.

It doesn't know: what a worker does inside a shard before it reports, but for the counts of its progress.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_wsgi_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from maskmill.flows.config import ConfigError
from maskmill.workers.run.events import Progress, ShardDone, ShardFailed, WorkerLost

if TYPE_CHECKING:
    from maskmill.workers.run.events import PoolEvent

HOST = "127.0.0.1"
PORTS = 32
"""How many ports from the one that is named on are tried, for as many runs on one machine."""


class RunMetrics(Collector):
    """The numbers of one run, safe between threads.

    Args:
        shards_total, images_total: what the run is to work.
        labels: on every sample: run and dataset.
    """

    def __init__(self, *, shards_total: int, images_total: int, labels: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._labels = dict(labels)
        self._shards_total, self._images_total = shards_total, images_total
        self._images, self._masks = 0, 0
        self._rejects, self._steps, self._shards = Counter[str](), Counter[str](), Counter[str]()
        self._workers, self._gpu_bytes = Counter[str](), dict[str, float]()
        self._lost, self._seconds, self._finished = 0, 0.0, 0

    def plan(self, shards_total: int, images_total: int) -> None:
        """Takes in what the run is to work now: a plan in the making grows."""
        with self._lock:
            self._shards_total, self._images_total = shards_total, images_total

    def see(self, event: PoolEvent) -> None:
        """Takes an event in."""
        with self._lock:
            match event:
                case Progress():
                    self._progress(event)
                case ShardDone():
                    self._done(event)
                case ShardFailed():
                    self._shards["failed"] += 1
                case WorkerLost():
                    self._lost += 1

    def collect(self) -> Iterator[Metric]:
        """Every family with its samples, as they are now."""
        with self._lock:
            settled = self._shards["done"] + self._shards["failed"] + self._shards["in_work"]
            shards = {**self._shards, "waiting": max(0, self._shards_total - settled)}
            yield self._gauge("images_done", "Images annotated or rejected by this run.", self._images)
            yield self._gauge("masks_done", "Masks kept by this run.", self._masks)
            yield self._gauge("images_total", "Images that this run is to work.", self._images_total)
            yield self._counter("rejects", "Images rejected, of finished shards.", "reason", self._rejects)
            yield self._counter("step_seconds", "Seconds of work, over threads.", "step", self._steps)
            yield self._gauges("shards", "Shards: done, failed, in_work, waiting.", "state", shards)
            yield self._gauges("workers", "Workers: ready, starting.", "state", self._workers)
            yield self._gauges("gpu_memory_bytes", "Held by a worker.", "worker", self._gpu_bytes)
            lost = CounterMetricFamily(
                "maskmill_workers_lost",
                "Workers that died, hung or went with their node.",
                labels=list(self._labels),
            )
            lost.add_metric(list(self._labels.values()), self._lost)
            yield lost
            took = SummaryMetricFamily(
                "maskmill_shard_seconds", "Of a shard, whole.", labels=list(self._labels)
            )
            took.add_metric(list(self._labels.values()), self._finished, self._seconds)
            yield took

    def _progress(self, event: Progress) -> None:
        self._images, self._masks = event.images_done + event.num_rejects, event.masks_done
        self._shards["in_work"] = len(event.shards_in_work)
        self._workers = Counter(ready=event.workers_ready, starting=event.workers_starting)
        self._gpu_bytes = {str(worker): size for worker, size in event.gpu_bytes.items()}

    def _done(self, event: ShardDone) -> None:
        report = event.report
        self._shards["done"] += 1
        self._rejects.update(report.rejects)
        for step, seconds in report.seconds_by_step.items():
            self._steps[step] += seconds  # type: ignore[assignment]  # counters of floats
        self._seconds += report.wall_s
        self._finished += 1

    def _gauge(self, name: str, words: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"maskmill_{name}", words, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _gauges(self, name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"maskmill_{name}", words, labels=[*self._labels, label])
        for key, value in sorted(values.items()):
            family.add_metric([*self._labels.values(), key], value)
        return family

    def _counter(self, name: str, words: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
        family = CounterMetricFamily(f"maskmill_{name}", words, labels=[*self._labels, label])
        for key, value in sorted(values.items()):
            family.add_metric([*self._labels.values(), key], value)
        return family


@contextmanager
def serving(metrics: Collector, port: int) -> Iterator[int]:
    """Answers scrapes inside the block; gives the port: the one named, or the next that is free.

    Args:
        metrics: what is told.
        port: where to begin; 0 asks for any.

    Raises:
        ConfigError: none can be opened.
    """
    registry = CollectorRegistry()
    registry.register(metrics)
    host = os.environ.get("MASKMILL_METRICS_HOST", HOST)
    for place in range(port, min(port + PORTS, 2**16)) if port else (0,):
        try:
            server, thread = start_wsgi_server(place, addr=host, registry=registry)
            break
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise ConfigError(f"run.metrics_port={place} cannot be opened on {host}: {exc}") from exc
    else:
        raise ConfigError(f"run.metrics_port={port}: it and the {PORTS - 1} after it are taken on {host}")
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
