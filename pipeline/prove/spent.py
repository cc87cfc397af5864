"""What a call takes: seconds of the wall and of the processor, and memory at its peak.

On CUDA seconds count until the device has finished, and memory is the device's. On a CPU the peak of resident
memory is Linux's, set back before the call; what an earlier call freed without giving it back would hide it,
so it is given back first.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Spent:
    """Seconds of one call."""

    wall_s: float
    cpu_s: float


def timed(work: Callable[[], Result]) -> tuple[Result, Spent]:
    """The result, and what it took."""
    wait_for_devices()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wait_for_devices()
    return result, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def wait_for_devices() -> None:
    """Returns when a GPU has done what it was given; at once without one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def with_peak_bytes(work: Callable[[], Result]) -> tuple[Result, int]:
    """The result, and peak memory while it was made above what was held before.

    Raises:
        OSError: a system whose /proc doesn't tell.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        result = work()
        return result, torch.cuda.max_memory_allocated() - held
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    held = _status_bytes("VmRSS")
    result = work()
    return result, _status_bytes("VmHWM") - held


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
