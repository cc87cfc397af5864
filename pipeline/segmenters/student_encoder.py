"""The encoder that nano began with, and the blocks that its successor's neck shares.

ConvNeXt blocks at strides 4, 8 and 16, blocks of self-attention at stride 32 (global context), fused
top-down into stride 8. Layer norms only: nothing depends on the batch.

Shapes: B images, C channels, H x W positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.student import StudentConfig


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of B x C x H x W; free of copies when memory is channels-last."""

    def forward(self, input: Tensor) -> Tensor:
        """Every position's channels normed, in the shape they came in."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """ConvNeXt block: 7x7 depthwise convolution, layer norm, a two-layer MLP on each position, residual."""

    def __init__(self, width: int, expansion: int = 3) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """B x C x H x W through the block, in the same shape."""
        y_BHWC = self.norm(self.mix(x_BCHW).permute(0, 2, 3, 1))
        y_BHWC = self.narrow(F.gelu(self.widen(y_BHWC))) * self.scale
        out_BCHW: Tensor = x_BCHW + y_BHWC.permute(0, 3, 1, 2)
        return out_BCHW


class AttentionBlock(nn.Module):
    """Transformer block over all positions; a 3x3 depthwise convolution tells it where things are."""

    def __init__(self, width: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, width // head_width)
        self.place = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 3 * width)
        self.narrow = nn.Linear(3 * width, width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """B x C x H x W through the block, in the same shape: every position sees all."""
        batch, width, height, length = x_BCHW.shape
        x_BNC = (x_BCHW + self.place(x_BCHW)).flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm1(x_BNC)).view(batch, height * length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, height * length, width)
        x_BNC = x_BNC + self.out(mixed)
        x_BNC = x_BNC + self.narrow(F.gelu(self.widen(self.norm2(x_BNC))))
        out_BCHW: Tensor = x_BNC.transpose(1, 2).view(batch, width, height, length)
        return out_BCHW


def _down(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(ChannelNorm(width_in), nn.Conv2d(width_in, width_out, 2, stride=2))


def neck(dim: int) -> nn.Sequential:
    """What refines a fused embedding of `dim` channels."""
    return nn.Sequential(ConvBlock(dim), ConvBlock(dim), ChannelNorm(dim))


class StudentEncoder(nn.Module):
    """Image to embedding: B x 3 x S x S, normalised, to B x embed_dim x S/8 x S/8."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.img_size = config.image_size
        w4, w8, w16, w32 = config.widths
        d4, d8, d16, d32 = config.depths

        # Four stages, each at half the resolution
        self.stem = nn.Sequential(
            nn.Conv2d(3, w4 // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(w4 // 2, w4, 3, stride=2, padding=1),
        )
        self.stage4 = nn.Sequential(ChannelNorm(w4), *(ConvBlock(w4) for _ in range(d4)))
        self.stage8 = nn.Sequential(_down(w4, w8), *(ConvBlock(w8) for _ in range(d8)))
        self.stage16 = nn.Sequential(_down(w8, w16), *(ConvBlock(w16) for _ in range(d16)))
        self.stage32 = nn.Sequential(_down(w16, w32), *(AttentionBlock(w32) for _ in range(d32)))

        # All joined at stride 8
        dim = config.embed_dim
        self.from4 = nn.Conv2d(w4, dim, 2, stride=2)
        self.from8, self.from16, self.from32 = (
            nn.Conv2d(w8, dim, 1),
            nn.Conv2d(w16, dim, 1),
            nn.Conv2d(w32, dim, 1),
        )
        self.neck = neck(dim)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """The embedding of a batch of images, at stride 8."""
        embedding: Tensor = self.neck(self.fused(image_B3HW))
        return embedding

    def fused(self, image_B3HW: Tensor) -> Tensor:
        """The features of all strides, joined at stride 8; not yet refined."""
        x4 = self.stage4(self.stem(image_B3HW.contiguous(memory_format=torch.channels_last)))
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
        top = self.from16(x16) + F.interpolate(self.from32(x32), scale_factor=2.0, mode="nearest")
        fused: Tensor = (
            self.from4(x4) + self.from8(x8) + F.interpolate(top, scale_factor=2.0, mode="bilinear")
        )
        return fused
