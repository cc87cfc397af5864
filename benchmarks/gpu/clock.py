"""How long device work takes, and the book of sections that a run keeps against its time limit."""

from __future__ import annotations

import json
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a section may die of without taking the others along: its traceback goes into the book."""


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(
    work: Callable[[], object], device: torch.device, *, runs: int = 10, warm_ups: int = 3
) -> float:
    """The median of single runs, the device's end included; on a CPU, which only rehearses, one run."""
    if device.type == "cpu":
        runs, warm_ups = 1, 0
    for _ in range(warm_ups):
        work()
    wait(device)
    seconds = []
    for _ in range(runs):
        start_s = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - start_s)
    return round(statistics.median(seconds) * 1e3, 3)


def peak_gib(device: torch.device) -> float | None:
    """Most memory allocated since the last question; None on a CPU."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return round(peak, 2)


@dataclass
class Book:
    """Results by section, written after each.

    Attributes:
        path: of the JSON.
        limit_s: no section begins that is expected to end after it.
        results: so far.
    """

    path: Path
    limit_s: float
    results: dict[str, Any] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)

    def section(self, name: str, expected_s: float, work: Callable[[], Any]) -> None:
        """Runs and writes one section; what it dies of is written too."""
        now_s = time.monotonic() - self.began_s
        if now_s + expected_s > self.limit_s:
            self.results[name] = {"left_out": f"{now_s:.0f} s of {self.limit_s:.0f} s are used"}
        else:
            try:
                found = work()
            except FAILURES:
                found = {"failed": traceback.format_exc(limit=-6)}
            self.results[name] = found
            self.results.setdefault("seconds", {})[name] = round(time.monotonic() - self.began_s - now_s, 1)
        self.path.write_text(json.dumps(self.results, indent=1) + "\n")
