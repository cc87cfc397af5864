"""A layer that takes every token for itself, over blocks of tokens: its hidden numbers stay in a CPU's cache.

The hidden layer of SAM 3's MLP is 98 MB an image, which is written, read by GELU, written and read again. A
block of 8 MB goes through all of it at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BLOCK_NUMBERS = 2**21
_TOKENWISE = ("Sam3MLP", "Sam2FeedForward")
"""transformers' MLPs of vision encoders."""


class TokenBlocks(nn.Module):
    """A tokenwise module, over blocks on a CPU and whole elsewhere.

    Args:
        module: gives each vector along the last axis its own, whatever the others are; for inference.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        widths = [layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear)]
        self._rows = max(1, _BLOCK_NUMBERS // max(widths))

    def forward(self, tokens: Tensor) -> Tensor:
        """The module's numbers, within rounding.

        Args:
            tokens: float[..., C].
        """
        if tokens.device.type != "cpu":
            whole: Tensor = self.module(tokens)
            return whole
        blocks = torch.split(tokens.reshape(-1, tokens.shape[-1]), self._rows)
        return torch.cat([self.module(block) for block in blocks]).view(*tokens.shape[:-1], -1)


def over_blocks(vision: nn.Module) -> nn.Module:
    """A vision encoder of transformers whose MLPs go over blocks; changed in place."""
    for layer in list(vision.modules()):
        mlp = getattr(layer, "mlp", None)
        if mlp is not None and type(mlp).__name__ in _TOKENWISE:
            layer.mlp = TokenBlocks(mlp)
    return vision
