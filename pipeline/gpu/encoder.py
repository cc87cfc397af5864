"""SAM's image encoder (ViT) for a batch of images on a device: attention by ops.py, windows without waste.

As decoder/encoder.py, the same weights and within rounding the same numbers. What differs: a window that
reaches over the border is never padded, its missing keys come from the projection's bias; queries, keys and
values stay where the projection wrote them; nothing is cut to fit a cache.

An encoder that is no ViT of segment_anything runs as it is.

Shapes: B images, H x W tokens, C channels, N heads, D channels of a head, k rows or columns of a window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.gpu.ops import AttentionInputs, DeviceOps


def on_device(encoder: nn.Module, ops: DeviceOps) -> nn.Module:
    """The encoder with attention by `ops`; one that is no ViT of segment_anything is returned as it is.

    Args:
        encoder: on its device, in its number format.
        ops: of that device.
    """
    return DeviceEncoder(encoder, ops) if isinstance(encoder, ImageEncoderViT) else encoder


class DeviceEncoder(nn.Module):
    """An `ImageEncoderViT` by other means; it holds the encoder, whose weights stay in force.

    Args:
        encoder: on its device, in its number format.
        ops: of that device.
    """

    def __init__(self, encoder: Any, ops: DeviceOps) -> None:
        super().__init__()
        self.encoder = encoder
        self._ops = ops
        side = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
        self._tables = [
            _position_tables(block.attn, block.window_size or side, side) for block in encoder.blocks
        ]

    @torch.no_grad()
    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Embeddings float[B, C, H / 16, W / 16] of normalised, padded images."""
        (tokens_BHWC,) = deque(self.after_blocks(images_B3HW), maxlen=1)
        embedding: Tensor = self.encoder.neck(tokens_BHWC.permute(0, 3, 1, 2))
        return embedding

    @torch.no_grad()
    def after_blocks(self, images_B3HW: Tensor) -> Iterator[Tensor]:
        """The tokens float[B, H / 16, W / 16, C] after each block."""
        tokens_BHWC = self.encoder.patch_embed(images_B3HW)
        if self.encoder.pos_embed is not None:
            tokens_BHWC = tokens_BHWC + self.encoder.pos_embed
        for block, tables in zip(self.encoder.blocks, self._tables, strict=True):
            tokens_BHWC = tokens_BHWC + self._attended(block, block.norm1(tokens_BHWC), tables)
            tokens_BHWC = tokens_BHWC + block.mlp(block.norm2(tokens_BHWC))
            yield tokens_BHWC

    def _attended(self, block: Any, normal_BHWC: Tensor, tables: tuple[Tensor, Tensor] | None) -> Tensor:
        attention = block.attn
        heads, channels = attention.num_heads, normal_BHWC.shape[-1]
        qkv_BHW3ND = attention.qkv(normal_BHWC).unflatten(-1, (3, heads, channels // heads))
        bias = attention.qkv.bias
        bias_3ND = qkv_BHW3ND.new_zeros(3 * channels) if bias is None else bias.detach()

        # Each query's products with the tables of its window's rows and columns
        down = across = None
        if tables is not None:
            query_BHWND = qkv_BHW3ND[:, :, :, 0]
            down = torch.einsum("bhwnd,hkd->bhwnk", query_BHWND, tables[0]).contiguous()
            across = torch.einsum("bhwnd,wkd->bhwnk", query_BHWND, tables[1]).contiguous()
        window = block.window_size or max(normal_BHWC.shape[1:3])
        inputs = AttentionInputs(qkv_BHW3ND, bias_3ND.view(3, heads, channels // heads), down, across, window)
        return F.linear(self._ops.attention(inputs).flatten(-2), attention.proj.weight, attention.proj.bias)


def _position_tables(attention: Any, window: int, side: int) -> tuple[Tensor, Tensor] | None:
    """For each row and each column of the image, the table of its place in its window: [side, k, D]."""
    if not attention.use_rel_pos:
        return None
    places = torch.arange(side, device=attention.rel_pos_h.device) % window
    down_kkD = get_rel_pos(window, window, attention.rel_pos_h.detach())
    across_kkD = get_rel_pos(window, window, attention.rel_pos_w.detach())
    return down_kkD[places].contiguous(), across_kkD[places].contiguous()
