"""`maskmill generate --dry-run`: what a run would take, measured on a few of its images."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from maskmill.flows.report import console
from maskmill.flows.report.words import count, duration, size

if TYPE_CHECKING:
    from maskmill.flows.config import RunConfig
    from maskmill.workers.jobs.estimate import Estimate, Interval


def show_estimate(dataset: str, inputs: list[str], config: RunConfig, *, json: bool) -> None:
    """Annotates a sample in a temporary folder and prints what the whole would take; writes nothing else."""
    from maskmill.flows.runs.steps.planning import describe_run
    from maskmill.flows.services.ray.cluster import plan_crew
    from maskmill.workers.jobs.estimate import estimate_inputs

    spec = describe_run(dataset, config)
    workers = config.run.workers or plan_crew(config, [_this_machine()]).num_workers
    with console.live_watcher() as watcher:
        watcher.step("annotating a sample of the inputs", "image")
        estimate = estimate_inputs(inputs, spec, num_workers=workers, progress=watcher.count)
    if json:
        console.print_json(dataclasses.asdict(estimate))
        return
    console.print_pairs(_lines(estimate, workers), title="Dry run: nothing was written to the dataset")
    for unknown in estimate.unknown:
        console.note(unknown)
    console.next_steps([(console.command_line().replace(" --dry-run", ""), "run it")])


def _lines(estimate: Estimate, workers: int) -> list[tuple[str, str]]:
    lines = [
        ("images in the inputs", f"{estimate.num_inputs:,}"),
        ("measured on", f"{estimate.num_sampled:,} of them"),
        ("time", f"{_range(estimate.hours, _hours)} with {count(workers, 'worker')} like this machine's"),
        ("masks", _range(estimate.masks, lambda value: f"{value:,.0f}")),
        ("size", _range(estimate.total_bytes, size)),
    ]
    lines += [(f"  {column}", _range(bytes_, size)) for column, bytes_ in estimate.bytes_by_column.items()]
    lines += [
        (f"  rejected in the sample: {reason}", str(n)) for reason, n in estimate.rejected_in_sample.items()
    ]
    return lines


def _range(interval: Interval, say: Callable[[float], str]) -> str:
    """The mean and what it may be; a range without a high end is told so."""
    high = say(interval.high) if math.isfinite(interval.high) else "unknown"
    return f"{say(interval.mean)} ({say(interval.low)} to {high})"


def _hours(hours: float) -> str:
    return duration(3600 * hours)


def _this_machine() -> dict[str, float]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"CPU": float(len(os.sched_getaffinity(0))), "memory": float(pages)}
