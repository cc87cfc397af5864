"""Seeing a run from outside: Prometheus metrics over HTTP, and its events as lines of JSON.

The driver hears everything its workers say (pool events), so one address has a run's whole picture: images,
masks, rejects by reason, seconds by step, shards waiting and in work, workers, GPU memory by worker. `[run]
metrics_port` opens it, on the loopback address unless MASKMILL_METRICS_HOST says otherwise. `[run] log_file`
gets a line for every event, with run, shard and attempt.

It doesn't know: what a worker does inside a shard before it reports, but for the counts of its progress.
"""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from maskmill.flows.config import ConfigError, RunConfig
from maskmill.storage.secret_words import blank_secrets
from maskmill.workers.run.events import Progress, ShardDone, ShardFailed, WorkerLost

if TYPE_CHECKING:
    from maskmill.workers.run.events import PoolEvent, Progress, ShardDone

HOST = "127.0.0.1"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "images_done": ("gauge", "Images annotated or rejected by this run."),
    "masks_done": ("gauge", "Masks kept by this run."),
    "images_total": ("gauge", "Images that this run is to work."),
    "rejects_total": ("counter", "Images rejected, by reason, of finished shards."),
    "step_seconds_total": ("counter", "Seconds of work by step, summed over threads and workers."),
    "shards": ("gauge", "Shards by state: done, failed, in_work, waiting."),
    "workers": ("gauge", "Workers by state: ready, starting."),
    "workers_lost_total": ("counter", "Workers that died, hung or went with their node."),
    "gpu_memory_bytes": ("gauge", "GPU memory held by a worker."),
    "shard_seconds": ("summary", "Seconds from start to end of a shard."),
}


class RunMetrics:
    """The numbers of one run, safe between threads.

    Args:
        shards_total, images_total: what the run is to work.
        labels: on every sample: run and dataset.
    """

    def __init__(self, *, shards_total: int, images_total: int, labels: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._labels = dict(labels)
        self._shards_total = shards_total
        self._now: dict[str, float] = {"images_total": images_total}
        self._rejects, self._steps, self._shards = Counter[str](), Counter[str](), Counter[str]()
        self._workers, self._gpu_bytes = Counter[str](), dict[str, float]()
        self._lost, self._seconds, self._finished = 0, 0.0, 0

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

    def _progress(self, event: Progress) -> None:
        self._now |= {"images_done": event.images_done + event.num_rejects, "masks_done": event.masks_done}
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

    def text(self) -> str:
        """Prometheus' text format."""
        with self._lock:
            settled = self._shards["done"] + self._shards["failed"] + self._shards["in_work"]
            shards = {**self._shards, "waiting": max(0, self._shards_total - settled)}
            samples: list[tuple[str, str, dict[str, str], float]] = []
            samples += [(name, name, {}, value) for name, value in self._now.items()]
            samples += _by("rejects_total", "reason", self._rejects)
            samples += _by("step_seconds_total", "step", self._steps)
            samples += _by("shards", "state", shards)
            samples += _by("workers", "state", self._workers)
            samples += _by("gpu_memory_bytes", "worker", self._gpu_bytes)
            samples.append(("workers_lost_total", "workers_lost_total", {}, self._lost))
            samples.append(("shard_seconds", "shard_seconds_sum", {}, self._seconds))
            samples.append(("shard_seconds", "shard_seconds_count", {}, self._finished))
        return _text(samples, self._labels)


def _by(name: str, label: str, values: Mapping[str, float]) -> list[tuple[str, str, dict[str, str], float]]:
    return [(name, name, {label: key}, value) for key, value in sorted(values.items())]


def _text(samples: list[tuple[str, str, dict[str, str], float]], common: Mapping[str, str]) -> str:
    lines, told = [], set[str]()
    for family, name, labels, value in samples:
        if family not in told:
            told.add(family)
            kind, words = _HELP[family]
            lines += [f"# HELP maskmill_{family} {words}", f"# TYPE maskmill_{family} {kind}"]
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in {**common, **labels}.items())
        lines.append(f"maskmill_{name}{{{inside}}} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class EventLog:
    """A run's events as lines of JSON: time, run, event, shard, attempt, and what belongs to the event."""

    def __init__(self, file: TextIO, run: str, clock: Callable[[], float] = time.time) -> None:
        self._file, self._run, self._clock = file, run, clock

    def see(self, event: PoolEvent) -> None:
        """Writes an event, unless it is mere progress."""
        match event:
            case ShardDone(report=report, attempts=attempts):
                self.write(
                    "shard_done",
                    shard=report.shard,
                    attempt=report.attempt,
                    attempts=attempts,
                    images=report.num_images,
                    annotated=report.num_annotated,
                    masks=report.num_masks,
                    rejects=dict(report.rejects),
                    seconds=report.wall_s,
                    seconds_by_step=dict(report.seconds_by_step),
                    already_done=report.already_done,
                    lost_race=report.lost_race,
                )
            case ShardFailed(shard=shard, attempts=attempts, reason=reason):
                self.write("shard_failed", level="error", shard=shard, attempts=attempts, reason=reason)
            case WorkerLost(worker=worker, shard=shard, reason=reason, node_lost=node_lost):
                fields = {"worker": worker, "shard": shard, "reason": reason, "node_lost": node_lost}
                self.write("worker_lost", level="warning", **fields)

    def write(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """One line; what may be secret in texts is blanked."""
        shown = {
            name: blank_secrets(value) if isinstance(value, str) else value for name, value in fields.items()
        }
        head = {"time": round(self._clock(), 3), "level": level, "run": self._run, "event": event}
        self._file.write(json.dumps({**head, **shown}, ensure_ascii=False) + "\n")
        self._file.flush()


@contextmanager
def observed(
    config: RunConfig, dataset: str, shards: Mapping[int, int], run: str
) -> Iterator[Callable[[PoolEvent], None]]:
    """What is to be told of a run's events, by [run] metrics_port and log_file; nothing if neither is set.

    Raises:
        ConfigError: the port is taken, or the file cannot be written.
    """
    seers: list[Callable[[PoolEvent], None]] = []
    with ExitStack() as stack:
        if config.run.metrics_port is not None:
            metrics = RunMetrics(
                shards_total=len(shards),
                images_total=sum(shards.values()),
                labels={"run": run, "dataset": blank_secrets(dataset)},
            )
            stack.enter_context(serving(metrics.text, config.run.metrics_port))
            seers.append(metrics.see)
        if config.run.log_file is not None:
            log = EventLog(stack.enter_context(_opened(config.run.log_file)), run)
            log.write("run_started", dataset=dataset, shards=len(shards), images=sum(shards.values()))
            stack.callback(log.write, "run_ended")
            seers.append(log.see)

        def see(event: PoolEvent) -> None:
            """Hands an event to all who asked for it."""
            for each in seers:
                each(event)

        yield see


@contextmanager
def serving(text: Callable[[], str], port: int) -> Iterator[int]:
    """Answers GET /metrics with `text()` inside the block; gives the port (0 asks for a free one).

    Raises:
        ConfigError: the port is taken.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The metrics, and for every other path a 404 that says where they are."""
            found = self.path.split("?")[0] == "/metrics"
            body = text().encode() if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Scrapes are no news."""

    host = os.environ.get("MASKMILL_METRICS_HOST", HOST)
    try:
        server = http.server.ThreadingHTTPServer((host, port), Handler)
    except OSError as exc:
        raise ConfigError(f"run.metrics_port={port} cannot be opened on {host}: {exc.strerror}") from exc
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    try:
        place = Path(path).expanduser()
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("a", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"run.log_file={path!r} cannot be written: {exc.strerror}") from exc
    with file:
        yield file
