"""Kernels or plain torch: whose steps run on a device here."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

import torch

from maskmill.pipeline.gpu.ops import DeviceOps

_log = logging.getLogger(__name__)


def kernels_run_on(device: torch.device) -> bool:
    """Whether Triton kernels run on a device here."""
    if find_spec("triton") is None:
        return False
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def choose_ops(device: torch.device) -> DeviceOps:
    """Kernels where they run, else torch's operations, which the log says on a GPU.

    Args:
        device: that the tensors are on.
    """
    if kernels_run_on(device):
        from maskmill.pipeline.gpu.triton_ops import TritonOps

        return TritonOps()
    from maskmill.pipeline.gpu.torch_ops import TorchOps

    if device.type != "cpu":
        _log.warning(
            "no triton here: attention, mask head and measuring run as torch operations on %s", device
        )
    return TorchOps()
