"""A predicted-IoU head whose answer is corrected by a rising curve, kept with the weights.

The curve is piecewise linear between knots: what the head says, and the IoU that such answers had on pictures
apart. It rises everywhere, so it changes no order, only what a threshold means. Fresh heads have the
identity. The knots stay in float32 whatever the head computes in: in bfloat16 neighbours would meet.

Shapes: K knots, M mask outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor

LEAST_SLOPE = 1e-3
"""Of the curve anywhere, beyond its ends too: equal answers stay equal and no others become so."""


class CalibratedHead(MLP):  # type: ignore[misc]
    """segment_anything's head with a curve after it.

    Args:
        width: of the IoU token.
        hidden: width of the layers between.
        outputs: masks a prompt.
        depth: layers.
        knots: of the curve, at least 2.
    """

    def __init__(self, width: int, hidden: int, outputs: int, depth: int, knots: int) -> None:
        super().__init__(width, hidden, outputs, depth)
        self.register_buffer("said_K", torch.linspace(0, 1, knots))
        self.register_buffer("true_K", torch.linspace(0, 1, knots))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CalibratedHead:
        """Moves with the head, and keeps its precision."""
        curve = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in curve.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def forward(self, token: Tensor) -> Tensor:
        """float[..., M]: the head's answers, corrected by the curve."""
        return self.corrected(self.raw(token))

    def raw(self, token: Tensor) -> Tensor:
        """float[..., M]: the head's own answer."""
        return cast(Tensor, super().forward(token))

    def corrected(self, raw: Tensor) -> Tensor:
        """The curve at the head's own answers."""
        said_K, true_K = self.curve()
        value = raw.to(said_K.dtype)
        right = torch.searchsorted(said_K, value.detach().contiguous()).clamp(1, len(said_K) - 1)
        x0, x1, y0, y1 = said_K[right - 1], said_K[right], true_K[right - 1], true_K[right]
        inside = torch.minimum(torch.maximum(value, said_K[0]), said_K[-1])
        curve = y0 + (inside - x0) * (y1 - y0) / (x1 - x0)
        return (curve + LEAST_SLOPE * (value - inside)).to(raw.dtype)

    def curve(self) -> tuple[Tensor, Tensor]:
        """The knots: float32[K] of what the head says, float32[K] of what is true."""
        return cast(Tensor, self.said_K), cast(Tensor, self.true_K)

    def set_curve(self, said_K: Tensor, true_K: Tensor) -> None:
        """Put another curve in force.

        Args:
            said_K: float[K], rising.
            true_K: float[K], not falling; made to rise by `LEAST_SLOPE` at least.

        Raises:
            ValueError: another number of knots, or an order that is none.
        """
        own_said_K, own_true_K = self.curve()
        if said_K.shape != own_said_K.shape or true_K.shape != own_true_K.shape:
            raise ValueError(
                f"a curve of {len(said_K)} and {len(true_K)} knots: give {len(own_said_K)} of each"
            )
        steps = said_K.diff()
        if not bool((steps > 0).all()) or bool((true_K.diff() < 0).any()):
            raise ValueError("a calibration curve's knots must rise and its values must not fall")
        rises = torch.maximum(true_K.diff(), LEAST_SLOPE * steps)
        own_true_K.copy_(torch.cat([true_K[:1], true_K[:1] + rises.cumsum(0)]))
        own_said_K.copy_(said_K)
