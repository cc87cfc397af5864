"""SAM's image encoder (ViT) with attention that stays in cache: the same weights, the same numbers.

The reference's global attention writes the scores of all heads out (768 MiB at 1024 px), and reads and
writes them again for each of the two relative-position terms and for the softmax. Here a block of queries
goes through all of it at once: the position terms are the start value, the product adds the scores to them,
softmax in place, product with the values. The block's scores (4 MiB) stay in cache. Windowed attention goes
the same way, some windows and heads at a time; its output projection runs after the padding is cut off, which
changes nothing and is less. The MLP runs over blocks of tokens, so that its hidden layer stays in cache.

What it does not do: drop the padding of windows before attention. In the reference padding takes part as
keys, with the bias as their projection, so it must take part here.

Shapes: B images, H x W tokens, C channels; in attention G = (B or windows) x heads, N = h x w tokens, D
channels of a head, Q queries of a block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import get_rel_pos, window_partition, window_unpartition
from torch import Tensor, nn

# Numbers in a block of scores or of the MLP's hidden layer: 4 MiB stay in a CPU's cache, a GPU wants more.
_BLOCK_NUMBERS_CPU = 2**20
_BLOCK_NUMBERS_GPU = 2**28


def fuse_attention(encoder: nn.Module) -> nn.Module:
    """The encoder in its faster form; one that is no ViT of `segment_anything` is returned as it is."""
    return FusedImageEncoder(encoder) if isinstance(encoder, ImageEncoderViT) else encoder


class FusedImageEncoder(nn.Module):
    """An `ImageEncoderViT` by other means, for inference; it holds the encoder, whose weights stay in force.

    Args:
        encoder: `segment_anything.modeling.ImageEncoderViT` of any size, float32, bfloat16 or float16.
        block_numbers: how many numbers of scores or hidden values are made at a time; None chooses by device.
    """

    def __init__(self, encoder: Any, *, block_numbers: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size: int = encoder.img_size
        self._block_numbers = block_numbers

    @torch.no_grad()
    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Embeddings float[B, C, H / 16, W / 16] of normalised, padded images."""
        (tokens_BHWC,) = deque(self.after_blocks(images_B3HW), maxlen=1)
        embedding: Tensor = self.encoder.neck(tokens_BHWC.permute(0, 3, 1, 2))
        return embedding

    @torch.no_grad()
    def after_blocks(self, images_B3HW: Tensor) -> Iterator[Tensor]:
        """The tokens float[B, H / 16, W / 16, C] after each block; the next writes over them."""
        on_cpu = images_B3HW.device.type == "cpu"
        numbers = self._block_numbers or (_BLOCK_NUMBERS_CPU if on_cpu else _BLOCK_NUMBERS_GPU)
        tokens_BHWC = self.encoder.patch_embed(images_B3HW).contiguous()
        if self.encoder.pos_embed is not None:
            tokens_BHWC += self.encoder.pos_embed
        for block in self.encoder.blocks:
            _add_attention(tokens_BHWC, block, numbers)
            _add_mlp(tokens_BHWC, block, numbers)
            yield tokens_BHWC


def _add_attention(tokens_BHWC: Tensor, block: Any, block_numbers: int) -> None:
    """The first half of a block, in place."""
    normal_BHWC = block.norm1(tokens_BHWC)
    if block.window_size == 0:
        mixed_BHWC = attend(block.attn, normal_BHWC, block_numbers)
    else:
        windows, padded_hw = window_partition(normal_BHWC, block.window_size)
        mixed = attend(block.attn, windows, block_numbers)
        mixed_BHWC = window_unpartition(mixed, block.window_size, padded_hw, tokens_BHWC.shape[1:3])
    tokens_BHWC += block.attn.proj(mixed_BHWC)


def _add_mlp(tokens_BHWC: Tensor, block: Any, block_numbers: int) -> None:
    """The second half of a block, in place, over blocks of tokens."""
    size = max(1, block_numbers // block.mlp.lin1.out_features)
    for tokens_QC in torch.split(tokens_BHWC.view(-1, tokens_BHWC.shape[-1]), size):
        hidden = block.mlp.lin1(block.norm2(tokens_QC))
        if isinstance(block.mlp.act, nn.GELU) and block.mlp.act.approximate == "none":
            hidden = torch.ops.aten.gelu_(hidden)
        else:
            hidden = block.mlp.act(hidden)
        tokens_QC += block.mlp.lin2(hidden)


def attend(attention: Any, tokens_BHWC: Tensor, block_numbers: int) -> Tensor:
    """`segment_anything`'s attention with decomposed relative positions, before its output projection.

    Args:
        attention: `segment_anything.modeling.image_encoder.Attention`.
        tokens_BHWC: float[B, H, W, C], images or windows, normalised.
        block_numbers: how many scores to make at a time.

    Returns:
        float[B, H, W, C].

    Source: segment_anything/modeling/image_encoder.py::Attention.forward, add_decomposed_rel_pos.
    """
    batch, height, width, channels = tokens_BHWC.shape
    heads, length = attention.num_heads, height * width
    qkv = attention.qkv(tokens_BHWC).view(batch, length, 3, heads, channels // heads)
    qkv_3GND = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, channels // heads)
    query_GND, key_GND, value_GND = qkv_3GND.unbind(0)
    key_GDN = key_GND.transpose(
        1, 2
    ).contiguous()  # once: a bfloat16 product copies a transposed side each time
    mixed_GND = torch.empty_like(query_GND)
    rows = min(length, max(1, block_numbers // length))
    groups = max(1, block_numbers // (length * length))
    scores = query_GND.new_empty(groups * rows * length)
    positions = _position_terms(attention, query_GND, (height, width)) if attention.use_rel_pos else None

    for group in range(0, batch * heads, groups):
        some = slice(group, group + groups)
        for row in range(0, length, rows):
            query_GQD = query_GND[some, row : row + rows]
            shape = (*query_GQD.shape[:2], height, width)
            scores_GQhw = scores[: shape[0] * shape[1] * length].view(shape)
            if positions is None:
                scores_GQhw.zero_()
            else:
                down_GQh, across_GQw = (term[some, row : row + rows] for term in positions)
                torch.add(down_GQh[..., None], across_GQw[..., None, :], out=scores_GQhw)
            scores_GQN = scores_GQhw.view(*shape[:2], length)
            scores_GQN.baddbmm_(query_GQD, key_GDN[some], alpha=attention.scale)
            torch.softmax(scores_GQN, dim=-1, out=scores_GQN)
            mixed_GND[some, row : row + rows] = torch.bmm(scores_GQN, value_GND[some])
    mixed = mixed_GND.view(batch, heads, height, width, -1).permute(0, 2, 3, 1, 4)
    return mixed.reshape(batch, height, width, channels)


def _position_terms(attention: Any, query_GND: Tensor, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What each query adds to the scores of each row of keys, float[G, N, h], and of each column."""
    height, width = size_hw
    down_hhD = get_rel_pos(height, height, attention.rel_pos_h)
    across_wwD = get_rel_pos(width, width, attention.rel_pos_w)
    groups, length, width_of_head = query_GND.shape
    query_GhwD = query_GND.view(groups, height, width, width_of_head)
    down_Ghwk = torch.einsum("ghwd,hkd->ghwk", query_GhwD, down_hhD)
    across_Ghwk = torch.einsum("ghwd,wkd->ghwk", query_GhwD, across_wwD)
    return down_Ghwk.reshape(groups, length, height), across_Ghwk.reshape(groups, length, width)
