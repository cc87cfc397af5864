"""Which number format this machine multiplies fastest: measured, since flags don't say.

A CPU with avx512_bf16 ran products in bfloat16 at half float32's rate. So where a narrower format is asked
for on a CPU, both are tried on one product of a ViT's size, once a machine; the result is kept in maskmill's
cache folder, by processor, torch and threads. A narrower format that is no faster gives way to float32: its
masks are the public code's. A GPU is believed.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import time
from pathlib import Path

import torch

log = logging.getLogger(__name__)

_INNER, _COLUMNS = 768, 3072
_FEW_ROWS, _ROWS = 32, 1024
_HOPELESS = 0.5
"""A CPU without a format's instructions may take a hundred times as long: few rows tell it in a second."""
_RUNS = 5


def format_for(dtype: str, device: torch.device, *, cache: Path | None = None) -> str:
    """The number format to compute in.

    Args:
        dtype: asked for, as settings have it.
        device: to compute on.
        cache: folder of what was measured before; None is the user's.

    Returns:
        `dtype`, or "float32" where this CPU is no faster in it.
    """
    if dtype == "float32" or device.type != "cpu":
        return dtype
    ratio = _kept_ratio(dtype, cache or _cache_folder())
    if ratio > 1:
        return dtype
    log.warning(
        "%s is asked for, but this CPU multiplies %.2f times as fast in it as in float32: float32 is used",
        dtype,
        ratio,
    )
    return "float32"


def measured_ratio(dtype: str) -> float:
    """How many times as fast a product is in this format as in float32; the median of alternating pairs.

    Args:
        dtype: "bfloat16" or "float16".
    """
    few = _ratio(dtype, _FEW_ROWS)
    return few if few < _HOPELESS else _ratio(dtype, _ROWS)


def _ratio(dtype: str, rows: int) -> float:
    sides = [_product(getattr(torch, name), rows) for name in ("float32", dtype)]
    pairs = [[_seconds(*side) for side in sides] for _ in range(1 + _RUNS)][1:]
    return statistics.median(wide / narrow for wide, narrow in pairs)


def _product(dtype: torch.dtype, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(rows, _INNER, dtype=dtype), torch.ones(_INNER, _COLUMNS, dtype=dtype)


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    start_s = time.perf_counter()
    torch.mm(left, right)
    return time.perf_counter() - start_s


def _kept_ratio(dtype: str, folder: Path) -> float:
    """Measured before on this machine, or now."""
    path = folder / "number_formats.json"
    key = f"{dtype} {platform.machine()} {_processor()} torch {torch.__version__} {torch.get_num_threads()}"
    known: dict[str, float] = {}
    try:
        known = json.loads(path.read_text())
        return float(known[key])
    except (OSError, ValueError, KeyError, TypeError):
        ratio = round(measured_ratio(dtype), 3)

    # Kept where there is a place for it
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({**(known if isinstance(known, dict) else {}), key: ratio}))
        part.replace(path)
    except OSError as error:
        log.info("number formats are measured in each process: %s", error)
    return ratio


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _cache_folder() -> Path:
    """As for fetched models: $MASKMILL_CACHE, or ~/.cache/maskmill."""
    place = os.environ.get("MASKMILL_CACHE")
    return Path(place) if place else Path.home() / ".cache" / "maskmill"
