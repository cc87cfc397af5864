"""Of this machine: Python, cores, memory, disks, open files, and what a model can compute on.

A container's limits count, not its host's: cgroup v2, the affinity of this process. Torch is asked in a
process of its own, so that a driver that hangs or dies is a line like the others.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskmill.flows.services.doctor.findings import Finding, fine, look, wrong
from maskmill.pipeline.settings.memory import GB

PYTHON = (3, 11)
DISK_BYTES = 10 * GB
SHARED_BYTES = 10**9
"""What Ray's object store wants of /dev/shm before it goes to /tmp, which is slower."""

OPEN_FILES = 4096
TORCH_TIMEOUT_S = 120.0
CGROUP = Path("/sys/fs/cgroup")


def python() -> Finding:
    """The interpreter's version."""
    found = f"{platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON or sys.maxsize < 2**32:
        return wrong("python", found, "use a 64-bit Python 3.11 or newer")
    return fine("python", found)


def cores(cgroup: Path = CGROUP) -> Finding:
    """Cores that this process may use."""
    allowed = len(os.sched_getaffinity(0))
    quota = _cpu_quota(cgroup)
    usable = min(allowed, quota) if quota is not None else float(allowed)
    says = f"{usable:g} usable" + (f" of {os.cpu_count()}" if usable != os.cpu_count() else "")
    if quota is not None and quota < allowed:
        return look(
            "cores",
            f"{says}: the container's quota",
            f"start Ray with --num-cpus={max(1, int(quota))} (it counts {allowed}), or raise the quota",
        )
    return fine("cores", says)


def memory(need_bytes: int, cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Memory that is free, against what one worker of the run needs."""
    words = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(words["MemAvailable"].split()[0]) * 1024
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    limited = limit is not None and limit - (used or 0) < free
    free = limit - (used or 0) if limited and limit is not None else free
    says = (
        f"{_gb(free)} free{', by the container limit' if limited else ''}; a worker needs {_gb(need_bytes)}"
    )
    if free < need_bytes:
        return wrong(
            "memory", says, "use a smaller model, or a machine (or container limit) with more memory"
        )
    return fine("memory", f"{says}: room for {free // need_bytes}")


def disk(name: str, folder: Path, need_bytes: int = DISK_BYTES) -> Finding:
    """Room in a folder, or in what is there of it; whether it can be written is told by who writes there."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    says = f"{_gb(free)} free in {folder}"
    if free < need_bytes // 10:
        return wrong(name, says, f"free {_gb(need_bytes)} there, or name another place")
    if free < need_bytes:
        return look(name, says, f"a long run wants {_gb(need_bytes)} there: free some, or name another place")
    return fine(name, says)


def shared_memory(place: Path = Path("/dev/shm"), need_bytes: int = SHARED_BYTES) -> Finding:
    """/dev/shm, where Ray's processes share objects; containers have 64 MB of it by default."""
    if not place.is_dir():
        return look("shared memory", f"there is no {place}", "mount a tmpfs there: Ray falls back to /tmp")
    free = shutil.disk_usage(place).free
    says = f"{free / 1e6:.0f} MB free in {place}"
    if free < need_bytes:
        return look(
            "shared memory", says, "give the container more: --shm-size=1g, or a Memory volume at /dev/shm"
        )
    return fine("shared memory", says)


def open_files() -> Finding:
    """How many files a process may hold open; Ray's hold thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    says = f"{soft} at once (may be raised to {hard})"
    if soft < OPEN_FILES:
        return look("open files", says, f"type `ulimit -n {min(hard, 65536)}` before, or raise the limit")
    return fine("open files", says)


def compute(*, with_speeds: bool) -> Iterator[Finding]:
    """GPU, driver and the speeds of number formats, as torch finds them in a process of its own.

    Args:
        with_speeds: whether the products are timed, which takes some seconds.
    """
    driver = _driver()
    asked = [sys.executable, "-P", "-m", "maskmill.workers.jobs.machine_report"]
    try:
        done = subprocess.run(
            [*asked, *([] if with_speeds else ["--no-speeds"])],
            capture_output=True,
            text=True,
            check=False,
            timeout=TORCH_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        yield wrong("torch", f"did not answer for {TORCH_TIMEOUT_S:.0f} s", _DRIVER_CURE)
        return
    if done.returncode:
        told = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        yield wrong(
            "torch", f"cannot be used: {told}", "install maskmill's locked packages again: make setup"
        )
        return
    report: dict[str, Any] = json.loads(done.stdout)
    yield fine("torch", f"{report['torch']}, built for {report['built_for']}")
    yield _gpu(report, driver)
    if with_speeds:
        yield _formats(report)


_DRIVER_CURE = "run nvidia-smi: if it hangs or fails too, load the driver again (reboot) before anything else"


def _gpu(report: dict[str, Any], driver: str | None) -> Finding:
    gpus = report["gpus"]
    if gpus:
        shown = "; ".join(f"{gpu['name']}, {_gb(gpu['bytes'])}, sm_{gpu['capability']}" for gpu in gpus)
        return fine("gpu", f"{len(gpus)}: {shown}; driver {driver or 'unknown'}")
    if driver is None:
        return fine("gpu", "none: models compute on the CPU")
    if driver.startswith("!"):
        return wrong("gpu", f"the driver fails: {driver[1:]}", _DRIVER_CURE)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        cure = "unset CUDA_VISIBLE_DEVICES, or name the GPUs to use"
        return look("gpu", f"driver {driver}, but CUDA_VISIBLE_DEVICES={hidden!r} hides all", cure)
    if report["built_for"] == "cpu":
        cure = "install torch and torchvision for CUDA, both from one index"
        return wrong("gpu", f"driver {driver}, but this torch is for CPUs alone", cure)
    why = report["cuda_error"] or "torch finds no device"
    cure = f"a driver for CUDA {report['built_for']} or newer, or a torch built for an older CUDA"
    return wrong("gpu", f"driver {driver}, but {why}", cure)


def _formats(report: dict[str, Any]) -> Finding:
    """Which number format computes soonest; a CPU may have bfloat16 by name and run it at half the rate."""
    speeds: dict[str, float] = report["gflops"]
    shown = ", ".join(f"{name} {speed:.3g}" for name, speed in speeds.items())
    best = max(speeds, key=lambda name: speeds[name])
    return fine("number formats", f"{shown} GFLOP/s on {report['device']}: {best} computes soonest")


def _driver() -> str | None:
    """The NVIDIA driver's version; "!" and its words where it fails; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        version = Path("/proc/driver/nvidia/version")
        return "by /proc, without nvidia-smi" if version.exists() else None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except (subprocess.TimeoutExpired, OSError) as exc:
        return f"!nvidia-smi: {exc}"
    told = (done.stdout or done.stderr).strip().splitlines()
    if done.returncode:
        return f"!{told[0] if told else f'nvidia-smi ended with {done.returncode}'}"
    return told[0] if told else None


def _cpu_quota(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # not there, or "max"


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / GB:.1f} GB"
