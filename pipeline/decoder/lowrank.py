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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.decoder.lowrank_image import SharedImage, Stage, Step


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


class Growth(NamedTuple):
    """What a norm asks of the image tokens that a step has brought new rows of Z.

    Attributes:
        cross_P1S: X . Z B, the second summand of (3).
        own_P1S: |Z B|^2, its last.
        reach_P1S: the sum of the lengths of Z B's summands.
    """

    cross_P1S: Tensor
    own_P1S: Tensor
    reach_P1S: Tensor


class Work(Protocol):
    """The arithmetic at each image token of one image: operation by operation, or block by block.

    `number` is the stage's. `folded_PRK` is the tokens' side of (2) on B; None where Z has no rows yet.
    """

    @property
    def shared(self) -> SharedImage:
        """What the prompts share of the image."""
        ...

    def mix(
        self, keys: ImageKeys, number: int, query_PHTD: Tensor, folded_PRK: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attention over image tokens: (4)'s share rho alpha X W [P, H, T, D], share rho Z [P, R, K]."""
        ...

    def grow(
        self,
        keys: ImageKeys,
        number: int,
        key_PHTD: Tensor,
        folded_PRK: Tensor | None,
        factors_PKC: Tensor,
    ) -> Growth:
        """Attention over tokens: old rows of Z take their rho, the shares become rows behind them."""
        ...


def transform(
    transformer: Any, stages: Sequence[Stage], tokens_PTC: Tensor, work: Work
) -> tuple[Tensor, ImageKeys]:
    """`TwoWayTransformer.forward` for P prompts on one image.

    Args:
        transformer: whose small layers on tokens are run as they are.
        stages: its weights around the image tokens.
        tokens_PTC: output tokens and prompt, float[P, T, C].
        work: on the image.

    Returns:
        The tokens, float[P, T, C], and the image tokens in low-rank form.
    """
    prompts, num_tokens, channels = tokens_PTC.shape
    heads = stages[0].attention.output_HDC.shape[0]
    room = (prompts, (len(stages) - 1) * num_rows(num_tokens, heads), work.shared.last_CS.shape[1])
    rows_PKS = work.shared.like.new_empty(room)
    factors_PKC = tokens_PTC.new_empty(prompts, 0, channels)
    keys = ImageKeys(rows_PKS, 0, factors_PKC, [], None, None, tokens_PTC.new_ones(()))
    position_PTC, queries_PTC = tokens_PTC, tokens_PTC

    for number, layer in enumerate(transformer.layers):
        if layer.skip_first_layer_pe:
            queries_PTC = layer.norm1(layer.self_attn(q=queries_PTC, k=queries_PTC, v=queries_PTC))
        else:
            placed_PTC = queries_PTC + position_PTC
            attended_PTC = layer.self_attn(q=placed_PTC, k=placed_PTC, v=queries_PTC)
            queries_PTC = layer.norm1(queries_PTC + attended_PTC)

        # Tokens to image, then the tokens' own MLP
        attended_PTC = attend_to_image(keys, stages[number], number, queries_PTC + position_PTC, work)
        queries_PTC = layer.norm2(queries_PTC + attended_PTC)
        queries_PTC = layer.norm3(queries_PTC + layer.mlp(queries_PTC))

        # Image to tokens: the image side is brought to the next layer
        attend_to_tokens(keys, stages[number], number, queries_PTC + position_PTC, queries_PTC, work)

    last = len(stages) - 1
    attended_PTC = attend_to_image(keys, stages[last], last, queries_PTC + position_PTC, work)
    return transformer.norm_final_attn(queries_PTC + attended_PTC), keys


def attend_to_image(keys: ImageKeys, stage: Stage, number: int, queries_PTC: Tensor, work: Work) -> Tensor:
    """Token-to-image attention, float[P, T, C], of queries that carry their positions already."""
    attention = stage.attention
    query_PHTD = attention.query.tokens(queries_PTC) * attention.scale
    folded_PRK = _folded(keys, query_PHTD, attention.key.weight_HDC)
    mixed_PHTD, sums_PRK = work.mix(keys, number, query_PHTD, folded_PRK)
    mixed_PHTD = mixed_PHTD.to(queries_PTC.dtype)

    # (4): of X alone before the first layer's step, else Z's part too
    if sums_PRK is not None:
        mixed_PRC = torch.bmm(sums_PRK.to(queries_PTC.dtype), keys.factors_PKC) + stage.shift_C
        mixed_PHTC = mixed_PRC.view(*query_PHTD.shape[:3], -1)
        mixed_PHTD = mixed_PHTD + _each_head(mixed_PHTC, attention.value.weight_HDC.transpose(1, 2))

    mixed_PTA = (mixed_PHTD + attention.value.bias_H1D).transpose(1, 2).flatten(2)
    return F.linear(mixed_PTA, attention.output_HDC.flatten(0, 1).T, attention.output_bias_C)


def attend_to_tokens(
    keys: ImageKeys, stage: Stage, number: int, queries_PTC: Tensor, values_PTC: Tensor, work: Work
) -> None:
    """Image-to-token attention, the residual sum and the norm after it: brings `keys` to the next stage.

    Args:
        keys: the image tokens; are changed.
        stage: before the step.
        number: the stage's.
        queries_PTC: the tokens with their positions, of which the attention's keys are made.
        values_PTC: the tokens without.
        work: on the image.
    """
    step = stage.step
    assert step is not None, "the last stage has no step"
    attention = step.attention
    key_PHTD = attention.key.tokens(queries_PTC) * attention.scale
    folded_PRK = _folded(keys, key_PHTD, attention.query.weight_HDC)

    # Each head's last token goes into the others and one constant row
    value_PHTD = attention.value.tokens(values_PTC, bias=False).clone()
    value_PHTD[:, :, :-1] -= value_PHTD[:, :, -1:]
    keys.values_PHTD.append(value_PHTD)

    factors_PKC = _factors(keys.values_PHTD, step)
    grown = work.grow(keys, number, key_PHTD, folded_PRK, factors_PKC)
    keys.num_rows += num_rows(*key_PHTD.shape[2:0:-1])
    length_S = work.shared.stages[number].length_S
    assert length_S is not None, "the last stage has no norm"
    _normalise(keys, step, factors_PKC, length_S, grown)


def head_rows(keys: ImageKeys, shift_C: Tensor, prompt: int) -> tuple[Tensor, Tensor, Tensor]:
    """One prompt's last image tokens as (weight_S, rows_KS, factors_KC): weight * X + rows^T factors."""
    assert keys.rho_P1S is not None, "a transformer has at least one layer"
    rho_1S = keys.rho_P1S[prompt]
    alpha_1S = rho_1S if keys.alpha_P1S is None else rho_1S * keys.alpha_P1S[prompt]
    rho_1S, alpha_1S = rho_1S.to(keys.rows_PKS.dtype), alpha_1S.to(keys.rows_PKS.dtype)
    rows_KS = torch.cat([keys.filled_PKS[prompt] * rho_1S, torch.ones_like(rho_1S)])
    return alpha_1S[0], rows_KS, torch.cat([keys.factors_PKC[prompt], shift_C[None]])


def pays(num_tokens: int, num_heads: int, num_channels: int) -> bool:
    """Whether the low-rank form is cheaper than the dense one: 1.8 times at the limit, by its arithmetic."""
    return 2 * num_tokens * num_heads <= num_channels


def num_rows(num_tokens: int, num_heads: int) -> int:
    """Rows of Z that a layer brings."""
    return num_heads * (num_tokens - 1) + 1


def _folded(keys: ImageKeys, token_PHTD: Tensor, weight_HDC: Tensor) -> Tensor | None:
    """float[P, R, K]: (2)'s B W, with the tokens' side."""
    if keys.rho_P1S is None:
        return None
    folded_PRC = _each_head(token_PHTD, weight_HDC).flatten(1, 2)
    return torch.bmm(folded_PRC, keys.factors_PKC.transpose(1, 2))


def _normalise(keys: ImageKeys, step: Step, factors_PKC: Tensor, length_S: Tensor, grown: Growth) -> None:
    """LayerNorm of alpha X + Z B: its variance by parts, its scale into alpha, rho and B (taken over)."""
    # (3): the three summands, alpha having taken up the rho before
    cross_P1S, length_P1S = grown.cross_P1S, length_S.expand_as(grown.cross_P1S)
    if keys.rho_P1S is not None:
        keys.alpha_P1S = keys.rho_P1S if keys.alpha_P1S is None else keys.alpha_P1S * keys.rho_P1S
        cross_P1S, length_P1S = keys.alpha_P1S * cross_P1S, keys.alpha_P1S * length_P1S
    mean_square_P1S = (length_P1S.square() + 2 * cross_P1S + grown.own_P1S) / factors_PKC.shape[-1]

    # How far the sum has cancelled
    bound_P1S = (length_P1S + grown.reach_P1S).square() / factors_PKC.shape[-1]
    variance_P1S = mean_square_P1S.clamp_min(0) + step.eps
    keys.cancellation = torch.maximum(keys.cancellation, (bound_P1S / variance_P1S).amax())

    # (1): what the norm leaves
    keys.rho_P1S = variance_P1S.rsqrt()
    keys.factors_PKC = factors_PKC.mul_(step.scale_C)


def _factors(values_PHTD: Sequence[Tensor], step: Step) -> Tensor:
    """float[P, K, C]: B before this norm's scale, every layer's values behind it, its rows centred."""
    prompts, heads, tokens, _ = values_PHTD[0].shape
    size = num_rows(tokens, heads)
    factors_PKC = values_PHTD[0].new_empty(prompts, size * len(values_PHTD), len(step.scale_C))
    for layer, value_PHTD in enumerate(values_PHTD):
        own_PHTC = _each_head(value_PHTD, step.carried_HDC[layer])
        own_PKC = factors_PKC[:, layer * size : (layer + 1) * size]
        own_PKC[:, :-1].view(prompts, heads, tokens - 1, -1).copy_(own_PHTC[:, :, :-1])
        own_PKC[:, -1] = own_PHTC[:, :, -1].sum(dim=1) + step.constants_C[layer]  # the constant row
    return factors_PKC


def _each_head(values_PHTI: Tensor, weight_HIO: Tensor) -> Tensor:
    """float[P, H, T, O], a view: a product a head over all prompts, whose weights a broadcast would copy."""
    prompts, heads, tokens, width = values_PHTI.shape
    values_HNI = values_PHTI.transpose(0, 1).reshape(heads, prompts * tokens, width)
    return torch.bmm(values_HNI, weight_HIO).view(heads, prompts, tokens, -1).transpose(0, 1)
