"""What torch finds on this machine, as JSON: `python -m maskmill.workers.jobs.machine_report [--no-speeds]`.

A process of its own, because a broken driver may end or hang whoever asks. It doesn't judge.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.machine.speeds import FORMATS, product_gflops

SIZES = {"cpu": 1024, "cuda": 8192}


def report(*, with_speeds: bool) -> dict[str, Any]:
    """Versions, GPUs, and the speeds of number formats on the device that "auto" chooses.

    Args:
        with_speeds: whether products are timed.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    device = choose_device("auto")
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "built_for": torch.version.cuda or "cpu",
        "cuda_error": str(told[0].message).splitlines()[0] if told and not available else None,
        "gpus": [_gpu(place) for place in range(torch.cuda.device_count() if available else 0)],
        "device": str(device),
    }
    if with_speeds:
        size = SIZES[device.type]
        found["gflops"] = {
            name: product_gflops(getattr(torch, name), device=device, size=size, enough_s=0.5)
            for name in FORMATS
        }
    return found


def _gpu(place: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(place)
    return {
        "name": properties.name,
        "bytes": properties.total_memory,
        "capability": f"{properties.major}{properties.minor}",
    }


if __name__ == "__main__":
    json.dump(report(with_speeds="--no-speeds" not in sys.argv[1:]), sys.stdout)
