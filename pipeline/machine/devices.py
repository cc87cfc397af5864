"""The device that a setting names, if this machine has it."""

from __future__ import annotations

import torch


def choose_device(device: str) -> torch.device:
    """The device that a setting names.

    Args:
        device: "auto" is CUDA where there is one, else the CPU; or "cpu", "cuda", "cuda:1", "mps".

    Raises:
        ValueError: this machine lacks it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}: this machine has {torch.cuda.device_count()} CUDA devices; use auto or cpu"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={device!r}: this machine has no such device; use auto or cpu")
    return chosen
