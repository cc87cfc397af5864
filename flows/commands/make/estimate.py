"""`maskmill generate --dry-run`: what a run would take, measured on a few of its images."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from maskmill.flows.report import console

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
        watcher.step("annotating a sample of the inputs")
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
        ("images in the inputs", str(estimate.num_inputs)),
        ("measured on", f"{estimate.num_sampled} of them"),
        ("hours", f"{_range(estimate.hours)} with {workers} workers like this machine's"),
        ("masks", _range(estimate.masks)),
        ("gigabytes", _range(estimate.total_bytes, scale=1e-9)),
    ]
    lines += [(f"  {column}", _range(size, scale=1e-9)) for column, size in estimate.bytes_by_column.items()]
    lines += [
        (f"  rejected in the sample: {reason}", str(n)) for reason, n in estimate.rejected_in_sample.items()
    ]
    return lines


def _range(interval: Interval, *, scale: float = 1.0) -> str:
    low, mean, high = (value * scale for value in (interval.low, interval.mean, interval.high))
    return f"{mean:,.3g} ({low:,.3g} to {high:,.3g})"


def _this_machine() -> dict[str, float]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"CPU": float(len(os.sched_getaffinity(0))), "memory": float(pages)}
