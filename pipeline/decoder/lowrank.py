"""The mask decoder's image tokens in low-rank form: exact, and never written out.

Before the first decoder layer the image tokens X are the same for all prompts. A layer adds to them, by
attention to T tokens with H heads, the probabilities (S x H T) times the values after the output projection
(H T x C): a matrix of low rank. A head's probabilities sum to one, so each head's last token is folded into
the others and a constant: H (T - 1) + 1 rows, 49 for a point prompt. LayerNorm centres and scales rows, and
centring acts on X and on the values alone, so after any layer

    (1)  keys = rho * (alpha * X + Z B) + shift

with X (S x C) shared by all prompts on the image, Z (S x K) the probabilities so far, B (K x C) small, alpha
and rho one number an image token. Everything the decoder asks of `keys` follows without building it:

    (2)  keys W = rho (alpha X W + Z (B W)) + shift W
    (3)  |alpha X + Z B|^2 = alpha^2 |X|^2 + 2 alpha X . Z B + |Z B|^2, X and B centred
    (4)  share keys = (share rho Z) B + (share rho alpha) X + shift, where the shares sum to one

(2) is a product with a weight: X W is computed once an image, and for one head and token it is a product of
width D = 16. (3) is the squared length that LayerNorm divides by; its root goes into rho. (4) is attention's
sum of values: a softmax over image tokens does not see a key's bias, and value biases become constants.

Per prompt at 4096 image tokens this is 0.35 instead of 2.7 GFLOP, and 1.6 instead of 4 MiB kept.

Where a narrow number format is asked for (`share`), X, Z and all that is multiplied at each image token
are in it; tokens, B, alpha, rho and the squared lengths stay in the tokens' own.

The squared length is a sum that may cancel where LayerNorm's own would not: `ImageKeys.cancellation`
bounds it, and the caller decides. Where H T is not small against C the dense form is cheaper: `pays`.

Shapes: P prompts, T tokens, H heads, D channels of a head, C channels, S image tokens, K rows of Z, R = H T
scores of a prompt at an image token. S is the last axis: rows of S numbers are what the machine likes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskmill.pipeline.decoder.lowrank_image import SharedImage, SharedStage, Stage, Step


class Scratch:
    """Memory that is used again and again: touching new pages costs more than the arithmetic on them."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor, valid until `name` is taken again."""
        size = math.prod(shape)
        if name not in self._kept or len(self._kept[name]) < size:
            self._kept[name] = self._like.new_empty(size)
        return self._kept[name][:size].view(shape)


@dataclass
class ImageKeys:
    """The image tokens of P prompts: rho * (alpha * X + Z B) + shift, Z being the filled part of `rows_PKS`.

    `cancellation` is the largest ratio, over image tokens and norms so far, of the squared sum of the
    summands' lengths to the squared length of the sum: the variance's relative error is at most about that
    many float roundings. About 10 is usual; inf where nothing is left.
    """

    rows_PKS: Tensor
    num_rows: int
    factors_PKC: Tensor
    values_PHTD: list[Tensor]
    alpha_P1S: Tensor | None
    rho_P1S: Tensor | None
    cancellation: Tensor

    @property
    def filled_PKS(self) -> Tensor:
        """Z: the rows that layers have written so far, float[P, K, S]."""
        return self.rows_PKS[:, : self.num_rows]


def transform(
    transformer: Any, stages: Sequence[Stage], shared: SharedImage, tokens_PTC: Tensor, scratch: Scratch
) -> tuple[Tensor, ImageKeys]:
    """`TwoWayTransformer.forward` for P prompts on one image.

    Args:
        tokens_PTC: output tokens and prompt, float[P, T, C].

    Returns:
        The tokens, float[P, T, C], and the image tokens in low-rank form.
    """
    heads = stages[0].attention.output_HDC.shape[0]
    keys = _start(tokens_PTC, (len(stages) - 1) * _num_rows(tokens_PTC.shape[1], heads), shared)
    position_PTC, queries_PTC = tokens_PTC, tokens_PTC

    for layer, stage, image in zip(transformer.layers, stages, shared.stages, strict=False):
        if layer.skip_first_layer_pe:
            queries_PTC = layer.norm1(layer.self_attn(q=queries_PTC, k=queries_PTC, v=queries_PTC))
        else:
            placed_PTC = queries_PTC + position_PTC
            attended_PTC = layer.self_attn(q=placed_PTC, k=placed_PTC, v=queries_PTC)
            queries_PTC = layer.norm1(queries_PTC + attended_PTC)

        # Tokens to image, then the tokens' own MLP
        attended_PTC = attend_to_image(keys, stage, image, queries_PTC + position_PTC, scratch)
        queries_PTC = layer.norm2(queries_PTC + attended_PTC)
        queries_PTC = layer.norm3(queries_PTC + layer.mlp(queries_PTC))

        # Image to tokens: the image side is brought to the next layer
        attend_to_tokens(keys, stage, image, queries_PTC + position_PTC, queries_PTC, scratch)

    attended_PTC = attend_to_image(keys, stages[-1], shared.stages[-1], queries_PTC + position_PTC, scratch)
    return transformer.norm_final_attn(queries_PTC + attended_PTC), keys


def attend_to_image(
    keys: ImageKeys, stage: Stage, shared: SharedStage, queries_PTC: Tensor, scratch: Scratch
) -> Tensor:
    """Token-to-image attention, float[P, T, C], of queries that carry their positions already."""
    attention = stage.attention
    query_PHTD = attention.query.tokens(queries_PTC) * attention.scale
    weight_HDC = attention.key.weight_HDC
    scores_PHTS = _scores(keys, query_PHTD, shared.key_HDS, stage.key_position_HDS, weight_HDC, scratch)

    share_PHTS = torch.softmax(scores_PHTS, dim=-1, out=scratch.take("share", *scores_PHTS.shape))

    # (4): of X alone before the first layer's step, else Z's part and X's
    if keys.rho_P1S is None:
        mixed_PHTD = _mix(share_PHTS, shared.value_HDS, scratch).to(queries_PTC.dtype)
    else:
        share_PHTS.mul_(_as(keys.rho_P1S, share_PHTS)[:, None])
        rows_PRK = torch.bmm(share_PHTS.flatten(1, 2), keys.filled_PKS.transpose(1, 2))
        mixed_PRC = torch.bmm(_as(rows_PRK, keys.factors_PKC), keys.factors_PKC) + stage.shift_C
        if keys.alpha_P1S is not None:
            share_PHTS.mul_(_as(keys.alpha_P1S, share_PHTS)[:, None])
        mixed_PHTC = mixed_PRC.view(*query_PHTD.shape[:3], -1)
        mixed_PHTD = torch.matmul(mixed_PHTC, attention.value.weight_HDC.transpose(1, 2))
        mixed_PHTD += _mix(share_PHTS, shared.value_HDS, scratch)

    mixed_PHTD += attention.value.bias_H1D
    return torch.matmul(mixed_PHTD, attention.output_HDC).sum(dim=1) + attention.output_bias_C


def attend_to_tokens(
    keys: ImageKeys,
    stage: Stage,
    shared: SharedStage,
    queries_PTC: Tensor,
    values_PTC: Tensor,
    scratch: Scratch,
) -> None:
    """Image-to-token attention, the residual sum and the norm after it: brings `keys` to the next stage.

    Args:
        queries_PTC: the tokens with their positions, of which the attention's keys are made.
        values_PTC: the tokens without.
    """
    step = stage.step
    assert step is not None and shared.query_HDS is not None, "the last stage has no step"
    attention = step.attention
    key_PHTD = attention.key.tokens(queries_PTC) * attention.scale
    weight_HDC, position_HDS = attention.query.weight_HDC, step.query_position_HDS
    scores_PHTS = _scores(keys, key_PHTD, shared.query_HDS, position_HDS, weight_HDC, scratch)

    # Over the tokens: the shares are the new rows of Z
    share_PHTS = torch.softmax(scores_PHTS, dim=2, out=scratch.take("share", *scores_PHTS.shape))
    if keys.rho_P1S is not None:  # older rows carry their rho from here on
        keys.filled_PKS.mul_(_as(keys.rho_P1S, keys.rows_PKS))

    # Each head's last token goes into the others and one constant row
    first, last = keys.num_rows, keys.num_rows + _num_rows(*key_PHTD.shape[2:0:-1])
    rows_PHTS = _by_head(keys.rows_PKS[:, first : last - 1], key_PHTD.shape[1])
    rows_PHTS.copy_(share_PHTS[:, :, :-1])
    keys.rows_PKS[:, last - 1] = 1.0
    keys.num_rows = last

    # Their values are the new rows of B, its norm (3)
    value_PHTD = attention.value.tokens(values_PTC, bias=False).clone()
    value_PHTD[:, :, :-1] -= value_PHTD[:, :, -1:]
    keys.values_PHTD.append(value_PHTD)
    _normalise(keys, step, shared, scratch)


def head_rows(keys: ImageKeys, shift_C: Tensor, prompt: int) -> tuple[Tensor, Tensor, Tensor]:
    """One prompt's last image tokens as (weight_S, rows_KS, factors_KC): weight * X + rows^T factors."""
    assert keys.rho_P1S is not None, "a transformer has at least one layer"
    rho_1S = keys.rho_P1S[prompt]
    alpha_1S = rho_1S if keys.alpha_P1S is None else rho_1S * keys.alpha_P1S[prompt]
    rho_1S, alpha_1S = _as(rho_1S, keys.rows_PKS), _as(alpha_1S, keys.rows_PKS)
    rows_KS = torch.cat([keys.filled_PKS[prompt] * rho_1S, torch.ones_like(rho_1S)])
    return alpha_1S[0], rows_KS, torch.cat([keys.factors_PKC[prompt], shift_C[None]])


def pays(num_tokens: int, num_heads: int, num_channels: int) -> bool:
    """Whether the low-rank form is cheaper than the dense one: 1.8 times at the limit, by its arithmetic."""
    return 2 * num_tokens * num_heads <= num_channels


def _num_rows(num_tokens: int, num_heads: int) -> int:
    return num_heads * (num_tokens - 1) + 1


def _start(tokens_PTC: Tensor, num_rows: int, shared: SharedImage) -> ImageKeys:
    prompts, _, channels = tokens_PTC.shape
    rows_PKS = shared.like.new_empty(prompts, num_rows, shared.last_CS.shape[1])
    factors_PKC = tokens_PTC.new_empty(prompts, 0, channels)
    return ImageKeys(rows_PKS, 0, factors_PKC, [], None, None, tokens_PTC.new_ones(()))


def _normalise(keys: ImageKeys, step: Step, shared: SharedStage, scratch: Scratch) -> None:
    """LayerNorm of alpha X + Z B: its variance by parts, its scale into alpha, rho and B."""
    assert shared.length_S is not None, "the last stage has no norm"

    # B: every layer's values behind this norm, centred
    blocks = [
        _factors(value_PHTD, carried_HDC, constant_C)
        for value_PHTD, carried_HDC, constant_C in zip(
            keys.values_PHTD, step.carried_HDC, step.constants_C, strict=True
        )
    ]
    factors_PKC = torch.cat(blocks, dim=1)

    # (3): the three summands, alpha having taken up the rho before
    cross_P1S = _cross(keys, shared, scratch)
    own_P1S = _square(keys.filled_PKS, factors_PKC, len(blocks), scratch)
    length_P1S = shared.length_S.expand_as(cross_P1S)
    if keys.rho_P1S is not None:
        keys.alpha_P1S = keys.rho_P1S if keys.alpha_P1S is None else keys.alpha_P1S * keys.rho_P1S
        cross_P1S, length_P1S = keys.alpha_P1S * cross_P1S, keys.alpha_P1S * length_P1S
    mean_square_P1S = (length_P1S.square() + 2 * cross_P1S + own_P1S) / factors_PKC.shape[-1]

    # How far the sum has cancelled
    lengths_P1K = torch.linalg.vector_norm(factors_PKC, dim=-1)[:, None]
    reach_P1S = torch.bmm(_as(lengths_P1K, keys.rows_PKS), keys.filled_PKS)
    bound_P1S = (length_P1S + reach_P1S).square() / factors_PKC.shape[-1]
    variance_P1S = mean_square_P1S.clamp_min(0) + step.eps
    keys.cancellation = torch.maximum(keys.cancellation, (bound_P1S / variance_P1S).amax())

    # (1): what the norm leaves
    keys.rho_P1S = variance_P1S.rsqrt()
    keys.factors_PKC = factors_PKC * step.scale_C


def _factors(value_PHTD: Tensor, carried_HDC: Tensor, constant_C: Tensor) -> Tensor:
    """float[P, K, C]: one layer's part of B before the norm's scale, its rows centred, the constant last."""
    factors_PHTC = torch.matmul(value_PHTD, carried_HDC)
    last_P1C = factors_PHTC[:, :, -1].sum(dim=1, keepdim=True) + constant_C
    return torch.cat([factors_PHTC[:, :, :-1].flatten(1, 2), last_P1C], dim=1)


def _cross(keys: ImageKeys, shared: SharedStage, scratch: Scratch) -> Tensor:
    """float[P, 1, S]: the inner product of X and Z B at each image token, (3)'s second summand."""
    num_image_tokens = keys.rows_PKS.shape[-1]
    total_PS = torch.zeros(())
    layers = zip(keys.values_PHTD, shared.carried_HDS, shared.constants_S, strict=True)
    for layer, (value_PHTD, image_HDS, constant_S) in enumerate(layers):
        prompts, heads, tokens, _ = value_PHTD.shape
        rows_PKS = keys.rows_PKS[:, layer * _num_rows(tokens, heads) :][:, : _num_rows(tokens, heads)]
        crossed_PHTS = scratch.take("weighted", prompts, heads, tokens - 1, num_image_tokens)
        products_PHTS = _products(value_PHTD[:, :, :-1], image_HDS, scratch)
        torch.mul(products_PHTS, _by_head(rows_PKS[:, :-1], heads), out=crossed_PHTS)

        # The last token, folded into a row of ones
        last_PD = value_PHTD[:, :, -1].flatten(1)
        last_PS = _as(_as(last_PD, image_HDS) @ image_HDS.flatten(0, 1), last_PD) + constant_S

        sum_PS = _as(_sum_rows(crossed_PHTS.flatten(1, 2))[:, 0], last_PD)
        total_PS = total_PS + sum_PS + rows_PKS[:, -1] * last_PS
    return total_PS[:, None]


def _square(rows_PKS: Tensor, factors_PKC: Tensor, num_blocks: int, scratch: Scratch) -> Tensor:
    """float[P, 1, S]: the squared length of Z B, (3)'s last summand; each pair of blocks of rows once."""
    prompts, num_rows, num_image_tokens = rows_PKS.shape
    size = num_rows // num_blocks
    total_P1S = torch.zeros(())
    for first in range(0, num_rows, size):
        last = first + size
        gram_PKK = torch.bmm(factors_PKC[:, first:last], factors_PKC[:, :last].transpose(1, 2))
        gram_PKK[:, :, :first] *= 2

        weighted_PKS = scratch.take("weighted", prompts, size, num_image_tokens)
        torch.bmm(_as(gram_PKK, rows_PKS), rows_PKS[:, :last], out=weighted_PKS)
        sum_P1S = _sum_rows(weighted_PKS.mul_(rows_PKS[:, first:last]))
        total_P1S = total_P1S + _as(sum_P1S, factors_PKC)
    return total_P1S


def _sum_rows(rows_PKS: Tensor) -> Tensor:
    """float[P, 1, S]: the sum over rows, as a product, which is faster than `sum` over this axis."""
    return torch.bmm(rows_PKS.new_ones(rows_PKS.shape[0], 1, rows_PKS.shape[1]), rows_PKS)


def _scores(
    keys: ImageKeys,
    token_PHTD: Tensor,
    image_HDS: Tensor,
    position_HDS: Tensor,
    weight_HDC: Tensor,
    scratch: Scratch,
) -> Tensor:
    """float[P, H, T, S]: products of the tokens' side with the image tokens' projection by `weight_HDC`."""
    prompts, heads, tokens, _ = token_PHTD.shape

    # (2): X W, all there is before the first layer's step
    image_PHTS = _products(token_PHTD, image_HDS, scratch)
    scores_PHTS = scratch.take("scores", prompts, heads, tokens, image_HDS.shape[-1])
    if keys.rho_P1S is None:
        return scores_PHTS.copy_(image_PHTS)

    # (2): Z (B W), then alpha and rho, and last the positions
    folded_PRC = torch.matmul(token_PHTD, weight_HDC).flatten(1, 2)
    folded_PRK = torch.bmm(folded_PRC, keys.factors_PKC.transpose(1, 2))
    torch.bmm(_as(folded_PRK, keys.rows_PKS), keys.filled_PKS, out=scores_PHTS.flatten(1, 2))
    if keys.alpha_P1S is None:
        scores_PHTS.add_(image_PHTS)
    else:
        scores_PHTS.addcmul_(image_PHTS, _as(keys.alpha_P1S, image_PHTS)[:, None])
    scores_PHTS.mul_(_as(keys.rho_P1S, scores_PHTS)[:, None])
    return scores_PHTS.add_(_products(token_PHTD, position_HDS, scratch))


def _products(token_PHTD: Tensor, image_HDS: Tensor, scratch: Scratch) -> Tensor:
    """float[P, H, T, S], a view with the heads outermost: one product a head over all prompts' tokens."""
    prompts, heads, tokens, width = token_PHTD.shape
    token_HND = _as(token_PHTD, image_HDS).transpose(0, 1).reshape(heads, prompts * tokens, width)
    products_HNS = scratch.take("products", heads, prompts * tokens, image_HDS.shape[-1])
    torch.bmm(token_HND, image_HDS, out=products_HNS)
    return products_HNS.view(heads, prompts, tokens, -1).transpose(0, 1)


def _mix(share_PHTS: Tensor, value_HDS: Tensor, scratch: Scratch) -> Tensor:
    """float[P, H, T, D]: head by head, the values under the shares."""
    prompts, heads, tokens, image_tokens = share_PHTS.shape
    share_HPTS = scratch.take("products", heads, prompts, tokens, image_tokens)
    share_HPTS.copy_(share_PHTS.transpose(0, 1))
    mixed_HND = torch.bmm(share_HPTS.flatten(1, 2), value_HDS.transpose(1, 2))
    return mixed_HND.view(heads, prompts, tokens, -1).transpose(0, 1)


def _as(values: Tensor, like: Tensor) -> Tensor:
    """In the number format of `like`; the same tensor where it is already."""
    return values.to(like.dtype)


def _by_head(rows_PKS: Tensor, num_heads: int) -> Tensor:
    """float[P, H, K / H, S]: a view."""
    prompts, num_rows, num_image_tokens = rows_PKS.shape
    return rows_PKS.view(prompts, num_heads, num_rows // num_heads, num_image_tokens)
