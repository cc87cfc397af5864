"""How fast this machine multiplies matrices, by number format: what a flag of the CPU doesn't tell.

A large product, the best of several; no other work of a model is in it.
"""

from __future__ import annotations

import time

import torch

FORMATS = ("float32", "bfloat16", "float16")


def product_gflops(
    dtype: torch.dtype,
    *,
    device: str | torch.device = "cpu",
    size: int = 2048,
    tries: int = 8,
    enough_s: float = float("inf"),
) -> float:
    """GFLOP a second of a large product, on all of torch's threads.

    Args:
        dtype: of both sides and the result.
        device: where.
        size: rows and columns.
        tries: the best of so many counts; the first of several is for warming up.
        enough_s: seconds after which no further try begins.
    """
    left, right = (torch.randn(size, size).to(device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    seconds = []
    for _ in range(tries):
        _wait(left.device)
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait(left.device)
        seconds.append(time.perf_counter() - began)
        if sum(seconds) > enough_s:
            break
    return round(2e-9 * size**3 / min(seconds), 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
