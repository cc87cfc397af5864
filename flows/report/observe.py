"""Seeing a run from outside: its events to Prometheus (metrics.py), and as lines of JSON.

The driver hears everything its workers say (pool events), so one place has a run's whole picture. `[run]
metrics_port` opens a page of numbers; `[run] log_file` gets a line for every event, with run, shard and
attempt.

It doesn't know: what a worker does inside a shard before it reports, but for the counts of its progress.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from maskmill.flows.config import ConfigError, RunConfig
from maskmill.flows.report.report import watcher
from maskmill.storage.secret_words import blank_secrets
from maskmill.workers.run.events import ShardDone, ShardFailed, WorkerLost

if TYPE_CHECKING:
    from maskmill.workers.run.events import PoolEvent


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

    Args:
        config: whose [run] says what is told.
        dataset: its root.
        shards: shard -> images; it may grow while the run plans.
        run: its name.

    Raises:
        ConfigError: the port can't be opened, or the file cannot be written.
    """
    seers: list[Callable[[PoolEvent], None]] = []
    with ExitStack() as stack:
        if config.run.metrics_port is not None:
            from maskmill.flows.report.metrics import RunMetrics, serving

            metrics = RunMetrics(
                shards_total=len(shards),
                images_total=sum(shards.values()),
                labels={"run": run, "dataset": blank_secrets(dataset)},
            )
            port = stack.enter_context(serving(metrics, config.run.metrics_port))
            if port != config.run.metrics_port:
                watcher().note(
                    f"run.metrics_port={config.run.metrics_port} is another run's: this one's is {port}"
                )
            seers.append(lambda event: metrics.plan(len(shards), sum(shards.values())))
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
def _opened(path: str) -> Iterator[TextIO]:
    try:
        place = Path(path).expanduser()
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("a", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"run.log_file={path!r} cannot be written: {exc.strerror}") from exc
    with file:
        yield file
