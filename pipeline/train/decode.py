"""MaskDecoder.predict_masks for many prompts of several images at once, differentiable.

The reference decodes the prompts of one image and repeats its embedding for each. Here prompts without a
mask share their image's embedding through the first layer: token-to-image attention has no traffic between
prompts, so all tokens of an image form one query set over one K and V; the image-to-token queries are
projected once an image. From there on it's the reference's modules, over images x prompts. Equal to the
reference to rounding (a test holds it).

Shapes: B images, P prompts an image, T tokens a prompt, N = H x W positions, C channels, M mask outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Decoded:
    """What the decoder gives.

    Attributes:
        logits: float[B, P, M, 4H, 4W], low-resolution mask logits of all outputs, the single-mask one first.
        iou: float[B, P, M], predicted IoU.
    """

    logits: Tensor
    iou: Tensor


def decode(
    sam: Sam, embedding_BCHW: Tensor, sparse_BPTC: Tensor, dense_BPCHW: Tensor | None = None
) -> Decoded:
    """Decode prompts.

    Args:
        sam: the model.
        embedding_BCHW: float[B, C, H, W] from its image encoder.
        sparse_BPTC: float[B, P, T, C], embedded points and boxes, the same number for every prompt.
        dense_BPCHW: float[B, P, C, H, W], embedded mask prompts; None where there are none.

    Returns:
        All mask outputs and their predicted IoU.
    """
    decoder, batch, prompts = sam.mask_decoder, *sparse_BPTC.shape[:2]
    output_TC = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output_TC.expand(batch, prompts, -1, -1), sparse_BPTC.to(output_TC.dtype)], dim=2)
    height, width = embedding_BCHW.shape[-2:]
    with torch.autocast(embedding_BCHW.device.type, enabled=False):  # eight bits cannot tell positions apart
        pe_1NC = sam.prompt_encoder.pe_layer((height, width)).flatten(1).T[None]
    transformer = decoder.transformer
    point = tokens.flatten(0, 1)
    if dense_BPCHW is None:
        keys_BNC = (
            (embedding_BCHW + sam.prompt_encoder.no_mask_embed.weight[..., None, None])
            .flatten(2)
            .transpose(1, 2)
        )
        queries, keys = _first_layer(transformer.layers[0], tokens, keys_BNC, pe_1NC)
    else:
        keys = (embedding_BCHW[:, None] + dense_BPCHW).flatten(0, 1).flatten(2).transpose(1, 2)
        queries, keys = transformer.layers[0](queries=point, keys=keys, query_pe=point, key_pe=pe_1NC)
    for layer in list(transformer.layers)[1:]:
        queries, keys = layer(queries=queries, keys=keys, query_pe=point, key_pe=pe_1NC)
    attended = transformer.final_attn_token_to_image(q=queries + point, k=keys + pe_1NC, v=keys)
    queries = transformer.norm_final_attn(queries + attended)
    return _heads(sam, queries, keys, (batch, prompts, height, width))


def _first_layer(
    layer: TwoWayAttentionBlock, tokens_BPTC: Tensor, keys_BNC: Tensor, pe_1NC: Tensor
) -> tuple[Tensor, Tensor]:
    """The first two-way block with one set of keys an image; gives queries and keys for images x prompts."""
    batch, prompts, count, dim = tokens_BPTC.shape
    point = tokens_BPTC.flatten(0, 1)
    queries = layer.norm1(layer.self_attn(q=point, k=point, v=point))
    placed_BNC = keys_BNC + pe_1NC
    q_BQC = (queries + point).view(batch, prompts * count, dim)
    attended = layer.cross_attn_token_to_image(q=q_BQC, k=placed_BNC, v=keys_BNC)
    queries = layer.norm2(queries + attended.view(batch * prompts, count, dim))
    queries = layer.norm3(queries + layer.mlp(queries))
    attended = _image_to_token(layer.cross_attn_image_to_token, placed_BNC, queries + point, queries, prompts)
    keys = layer.norm4((keys_BNC[:, None] + attended).flatten(0, 1))
    return queries, keys


def _image_to_token(attention: Attention, q_BNC: Tensor, k: Tensor, v: Tensor, prompts: int) -> Tensor:
    """Attention of one image's positions to each prompt's tokens: float[B, P, N, C]."""
    batch, heads = q_BNC.shape[0], attention.num_heads
    q = attention.q_proj(q_BNC).unflatten(-1, (heads, -1)).transpose(1, 2)[:, None]
    k = attention.k_proj(k).unflatten(-1, (heads, -1)).unflatten(0, (batch, prompts)).transpose(2, 3)
    v = attention.v_proj(v).unflatten(-1, (heads, -1)).unflatten(0, (batch, prompts)).transpose(2, 3)
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
    mixed: Tensor = attention.out_proj((weights @ v).transpose(2, 3).flatten(3))
    return mixed


def _heads(sam: Sam, queries: Tensor, keys: Tensor, shape: tuple[int, int, int, int]) -> Decoded:
    """Tokens and keys to mask logits and predicted IoU."""
    decoder, (batch, prompts, height, width) = sam.mask_decoder, shape
    first, norm, activate, second, activate_again = decoder.output_upscaling
    fine = F.layer_norm(_upscale(first, keys), norm.weight.shape, norm.weight, norm.bias, norm.eps)
    fine = activate_again(_upscale(second, activate(fine)))
    hyper = torch.stack(
        [mlp(queries[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    blocks = (fine @ hyper.transpose(1, 2)).view(batch, prompts, height, width, 2, 2, 2, 2, -1)
    logits = blocks.permute(0, 1, 8, 2, 4, 6, 3, 5, 7).reshape(batch, prompts, -1, 4 * height, 4 * width)
    iou = decoder.iou_prediction_head(queries[:, 0]).view(batch, prompts, -1)
    return Decoded(logits, iou)


def _upscale(layer: nn.ConvTranspose2d, x_BNC: Tensor) -> Tensor:
    """A transposed convolution of kernel and stride 2 as one linear map a position: float[B, 4N, C], each
    position's four in a row."""
    assert layer.kernel_size == layer.stride == (2, 2) and layer.bias is not None
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return F.linear(x_BNC, weight, layer.bias.repeat(4)).view(x_BNC.shape[0], -1, layer.out_channels)
