"""A stretch of device work of fixed shapes, captured once as a CUDA graph and replayed.

On CUDA the first call for some shapes runs the stretch a few times on a stream of its own (kernels compile,
libraries choose), captures it, and from then on a call copies its inputs to where the graph reads them and
replays: one launch instead of hundreds. On any other device the stretch just runs.

The results are the graph's own memory: they hold until the next call of the same region.

Other threads (a copy's wait, pinned memory) may go on while it is captured.

What goes in a region must not look at a result, nor bring anything from the host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

_log = logging.getLogger(__name__)

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

_WARM_UPS = 2


@dataclass(frozen=True)
class _Captured(Generic[Result]):
    """A graph, where it reads and what it writes."""

    graph: Any
    inputs: tuple[Tensor, ...]
    result: Result


class Region(Generic[Result]):
    """One stretch of work.

    Args:
        name: for the log.
        work: takes tensors of one device, gives tensors in any form.
    """

    def __init__(self, name: str, work: Callable[..., Result]) -> None:
        self.name = name
        self.work = work
        self._captured: dict[tuple[object, ...], _Captured[Result]] = {}

    def __call__(self, *inputs: Tensor) -> Result:
        """The work's result for these inputs; on CUDA valid until the next call."""
        if inputs[0].device.type != "cuda":
            return self.work(*inputs)
        key = tuple((*one.shape, one.dtype) for one in inputs)
        captured = self._captured.get(key)
        if captured is None:
            captured = self._captured[key] = self._capture(inputs)
        for own, given in zip(captured.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        captured.graph.replay()
        return captured.result

    def _capture(self, given: tuple[Tensor, ...]) -> _Captured[Result]:
        """See the header."""
        inputs = tuple(one.clone() for one in given)
        cuda: Any = torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self.work(*inputs)
        cuda.current_stream().wait_stream(stream)

        graph = cuda.CUDAGraph()
        with cuda.graph(graph, capture_error_mode="thread_local"):
            result = self.work(*inputs)
        _log.info("captured %s for %s", self.name, [tuple(one.shape) for one in inputs])
        return _Captured(graph, inputs, result)
