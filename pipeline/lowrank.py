"""The mask decoder's image tokens in low-rank form: exact, and never written out.

Before the first decoder layer the image tokens X are the same for all prompts. A layer adds to them, by
attention to T tokens with `heads` heads, a matrix of rank R = T x heads: the probabilities A (S x R) times the
values after the output projection, B (R x C), with R = 56 for a point prompt. LayerNorm centres and scales
rows, and centring acts on X and on B alone, so after any layer

    keys = rho * (alpha * X + Z B) + shift,

with X (S x C) shared by all prompts of the image, Z (S x rows) the probabilities so far, B (rows x C) small,
alpha and rho one number an image token. Everything the decoder asks of `keys` follows without building it:

* A product with a weight, keys W, is rho (alpha X W + Z (B W)) + shift W. X W is computed once per image for each
  weight; per head and token it is a product of width C / 2 / heads = 16.
* The variance LayerNorm divides by is alpha^2 |X|^2 + sum over rows of Z (2 alpha B X^T + B B^T Z), centred.
* A softmax over image tokens does not see a key's bias; one over tokens sums to one, so value biases are constants.

Per prompt at 4096 image tokens this is 0.3 instead of 2.7 GFLOP and 1.9 instead of 4 MiB kept.

The variance comes from a sum that may cancel where LayerNorm's own would not: `cancellation` says by how much
(1: not at all), and the caller decides. Where R is not small against C the dense form is cheaper: `pays`.

Shapes: P prompts, T tokens, H heads, D channels of a head, R = T x H token-heads, C channels, S image tokens,
K rows of Z. Image tokens are the last axis nearly everywhere: rows of S numbers are what the machine likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Projection:
    """One linear layer of a cross attention, cut by head: `weight_HDC` maps C channels to D of each head."""

    weight_HDC: Tensor
    bias_H1D: Tensor

    def tokens(self, tokens_PTC: Tensor, *, bias: bool = True) -> Tensor:
        """float[P, H, T, D]: the tokens' projection."""
        heads, width, channels = self.weight_HDC.shape
        flat_bias = self.bias_H1D.reshape(-1) if bias else None
        projected = F.linear(tokens_PTC, self.weight_HDC.reshape(heads * width, channels), flat_bias)
        return projected.unflatten(-1, (heads, width)).transpose(1, 2)


@dataclass(frozen=True)
class Cross:
    """A cross attention between tokens and image; `output_HDC` maps each head's D channels to C."""

    query: Projection
    key: Projection
    value: Projection
    output_HDC: Tensor
    output_bias_C: Tensor

    @property
    def scale(self) -> float:
        return float(self.query.weight_HDC.shape[1] ** -0.5)

    @classmethod
    def of(cls, attention: Any) -> Cross:
        """From a `segment_anything.modeling.transformer.Attention`."""
        heads = attention.num_heads

        def cut(linear: Any) -> Projection:
            weight, bias = linear.weight.detach(), linear.bias.detach()
            return Projection(weight.unflatten(0, (heads, -1)), bias.reshape(heads, 1, -1))

        output_HDC = attention.out_proj.weight.detach().T.unflatten(0, (heads, -1)).contiguous()
        query, key, value = cut(attention.q_proj), cut(attention.k_proj), cut(attention.v_proj)
        return cls(query, key, value, output_HDC, attention.out_proj.bias.detach())

    def constant_C(self) -> Tensor:
        """What value and output biases add to each output, whatever the probabilities."""
        return torch.einsum("hid,hdc->c", self.value.bias_H1D, self.output_HDC) + self.output_bias_C


@dataclass(frozen=True)
class Step:
    """The weights that turn one state of the image tokens into the next: attention to tokens, sum, norm.

    Attributes:
        carried_HDC: for each layer so far, this one's last, from its values to centred channels of this state.
        constants_C: for each layer but the first, its constant, likewise.
        scale_C, eps: LayerNorm's. Its bias is the next state's `shift_C`.
    """

    attention: Cross
    query_position_HDS: Tensor
    carried_HDC: tuple[Tensor, ...]
    constants_C: tuple[Tensor, ...]
    constant_C: Tensor
    scale_C: Tensor
    eps: float


@dataclass(frozen=True)
class Stage:
    """The weights around one state of the image tokens: before layer 0, 1, ..., and after the last (no step)."""

    attention: Cross
    key_position_HDS: Tensor
    shift_C: Tensor
    step: Step | None


@dataclass(frozen=True)
class SharedStage:
    """What all prompts on an image share of one state: the products of its shared channels X with weights."""

    key_HDS: Tensor
    value_HDS: Tensor
    query_HDS: Tensor | None = None
    carried_HDS: tuple[Tensor, ...] = ()
    constants_S: tuple[Tensor, ...] = ()
    square_S: Tensor | None = None


@dataclass(frozen=True)
class SharedImage:
    """Every state's shared part, and the last state's shared channels X (C x S)."""

    stages: tuple[SharedStage, ...]
    last_CS: Tensor


@dataclass
class ImageKeys:
    """The image tokens of P prompts: rho * (alpha * X + Z B) + shift, Z being the filled part of `rows_PKS`.

    `cancellation` is the largest ratio, over image tokens and norms so far, of the summands of a variance
    to the variance; its relative error is about that many float roundings.
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
        return self.rows_PKS[:, : self.num_rows]


def build_stages(transformer: Any, position_CS: Tensor) -> tuple[Stage, ...]:
    """The stages of a `segment_anything` TwoWayTransformer, for one embedding size.

    Args:
        transformer: of any depth, width and number of heads.
        position_CS: float[C, S], the image tokens' positional encoding.
    """
    stages: list[Stage] = []
    shift_C = position_CS.new_zeros(len(position_CS))
    carried: list[Tensor] = []
    constants: list[Tensor] = []
    for number, layer in enumerate(transformer.layers):
        attention, norm = Cross.of(layer.cross_attn_image_to_token), layer.norm4
        constant_C = attention.constant_C() + shift_C
        carried = [_centre(weight) for weight in (*carried, attention.output_HDC)]
        constants = [_centre(row) for row in (*constants, *([constant_C] if number else []))]
        position = _project(attention.query.weight_HDC, position_CS + shift_C[:, None])
        position = position + attention.query.bias_H1D.transpose(1, 2)
        scale_C = norm.weight.detach()
        step = Step(attention, position, tuple(carried), tuple(constants), constant_C, scale_C, norm.eps)
        stages.append(_stage(layer.cross_attn_token_to_image, position_CS, shift_C, step))
        carried = [weight * scale_C for weight in carried]
        constants = [row * scale_C for row in constants]
        shift_C = norm.bias.detach()
    stages.append(_stage(transformer.final_attn_token_to_image, position_CS, shift_C, None))
    return tuple(stages)


def share(stages: Sequence[Stage], image_CS: Tensor) -> SharedImage:
    """Project an image's tokens (float[C, S], dense prompt embedding added) once for all prompts."""
    shared: list[SharedStage] = []
    for number, stage in enumerate(stages):
        key = _project(stage.attention.key.weight_HDC, image_CS)
        value = _project(stage.attention.value.weight_HDC, image_CS)
        step = stage.step
        if step is None:
            shared.append(SharedStage(key, value))
            continue
        query = _project(step.attention.query.weight_HDC, image_CS)
        if number == 0:  # alpha and rho are one: positions and the constant join the image
            key, query = key + stage.key_position_HDS, query + step.query_position_HDS
            image_CS = image_CS + step.constant_C[:, None]
        image_CS = image_CS - image_CS.mean(dim=0)
        carried = tuple(_project(weight, image_CS) for weight in step.carried_HDC)
        constants = tuple(row @ image_CS for row in step.constants_C)
        shared.append(SharedStage(key, value, query, carried, constants, image_CS.square().sum(dim=0)))
        image_CS = image_CS * step.scale_C[:, None]
    return SharedImage(tuple(shared), image_CS)


def transform(
    transformer: Any, stages: Sequence[Stage], shared: SharedImage, tokens_PTC: Tensor
) -> tuple[Tensor, ImageKeys]:
    """`TwoWayTransformer.forward` for P prompts on one image.

    Args:
        tokens_PTC: output tokens and prompt, float[P, T, C].

    Returns:
        The tokens, float[P, T, C], and the image tokens in low-rank form.
    """
    heads = stages[0].attention.output_HDC.shape[0]
    keys = _start(tokens_PTC, (len(stages) - 1) * (tokens_PTC.shape[1] * heads + 1), shared)
    position_PTC, queries_PTC = tokens_PTC, tokens_PTC
    for layer, stage, image in zip(transformer.layers, stages, shared.stages, strict=False):
        if layer.skip_first_layer_pe:
            queries_PTC = layer.norm1(layer.self_attn(q=queries_PTC, k=queries_PTC, v=queries_PTC))
        else:
            placed_PTC = queries_PTC + position_PTC
            queries_PTC = layer.norm1(queries_PTC + layer.self_attn(q=placed_PTC, k=placed_PTC, v=queries_PTC))
        queries_PTC = queries_PTC + attend_to_image(keys, stage, image, queries_PTC + position_PTC)
        queries_PTC = layer.norm2(queries_PTC)
        queries_PTC = layer.norm3(queries_PTC + layer.mlp(queries_PTC))
        attend_to_tokens(keys, stage, image, queries_PTC + position_PTC, queries_PTC)
    attended_PTC = attend_to_image(keys, stages[-1], shared.stages[-1], queries_PTC + position_PTC)
    return transformer.norm_final_attn(queries_PTC + attended_PTC), keys


def attend_to_image(keys: ImageKeys, stage: Stage, shared: SharedStage, queries_PTC: Tensor) -> Tensor:
    """Token-to-image attention, float[P, T, C], of queries that carry their positions already."""
    attention = stage.attention
    query_PHTD = attention.query.tokens(queries_PTC) * attention.scale
    weight_HDC = attention.key.weight_HDC
    scores_PRS = _scores(keys, query_PHTD, shared.key_HDS, stage.key_position_HDS, weight_HDC)
    share_PRS = torch.softmax(scores_PRS, dim=-1)
    if keys.rho_P1S is None:
        mixed_PHTD = _mix(share_PRS, shared.value_HDS)
    else:
        share_PRS.mul_(keys.rho_P1S)
        rows_PRK = torch.bmm(share_PRS, keys.filled_PKS.transpose(1, 2))
        mixed_PRC = torch.bmm(rows_PRK, keys.factors_PKC) + stage.shift_C
        if keys.alpha_P1S is not None:
            share_PRS.mul_(keys.alpha_P1S)
        mixed_PHTC = mixed_PRC.unflatten(1, query_PHTD.shape[1:3])
        mixed_PHTD = torch.matmul(mixed_PHTC, attention.value.weight_HDC.transpose(1, 2))
        mixed_PHTD += _mix(share_PRS, shared.value_HDS)
    mixed_PHTD += attention.value.bias_H1D
    return torch.matmul(mixed_PHTD, attention.output_HDC).sum(dim=1) + attention.output_bias_C


def attend_to_tokens(
    keys: ImageKeys, stage: Stage, shared: SharedStage, queries_PTC: Tensor, values_PTC: Tensor
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
    weight_HDC = attention.query.weight_HDC
    scores_PRS = _scores(keys, key_PHTD, shared.query_HDS, step.query_position_HDS, weight_HDC)
    share_PHTS = torch.softmax(scores_PRS.unflatten(1, key_PHTD.shape[1:3]), dim=2)
    if keys.rho_P1S is not None:  # what was there is scaled; what was constant becomes a row of ones
        keys.filled_PKS.mul_(keys.rho_P1S)
        keys.rows_PKS[:, keys.num_rows] = 1.0
        keys.num_rows += 1
    num_rows = keys.num_rows + scores_PRS.shape[1]
    keys.rows_PKS[:, keys.num_rows : num_rows] = share_PHTS.flatten(1, 2)
    keys.num_rows = num_rows
    keys.values_PHTD.append(attention.value.tokens(values_PTC, bias=False))
    _normalise(keys, step, shared)


def head_rows(keys: ImageKeys, shift_C: Tensor, prompt: int) -> tuple[Tensor, Tensor, Tensor]:
    """One prompt's last image tokens as (weight_S, rows_KS, factors_KC): weight * X + rows^T factors."""
    assert keys.rho_P1S is not None, "a transformer has at least one layer"
    rho_1S = keys.rho_P1S[prompt]
    alpha_1S = rho_1S if keys.alpha_P1S is None else rho_1S * keys.alpha_P1S[prompt]
    ones_1S = torch.ones_like(rho_1S)
    rows_KS = torch.cat([keys.filled_PKS[prompt] * rho_1S, ones_1S])
    return alpha_1S[0], rows_KS, torch.cat([keys.factors_PKC[prompt], shift_C[None]])


def pays(num_tokens: int, num_heads: int, num_channels: int) -> bool:
    """Whether the low-rank form is cheaper than the dense one."""
    return 2 * num_tokens * num_heads <= num_channels


def _start(tokens_PTC: Tensor, num_rows: int, shared: SharedImage) -> ImageKeys:
    prompts, _, channels = tokens_PTC.shape
    rows_PKS = shared.last_CS.new_empty(prompts, num_rows, shared.last_CS.shape[1])
    factors_PKC = tokens_PTC.new_empty(prompts, 0, channels)
    return ImageKeys(rows_PKS, 0, factors_PKC, [], None, None, tokens_PTC.new_ones(()))


def _normalise(keys: ImageKeys, step: Step, shared: SharedStage) -> None:
    """LayerNorm of alpha X + Z B: its variance by parts, its scale into alpha, rho and B."""
    assert shared.square_S is not None
    prompts, channels = len(keys.rows_PKS), len(step.scale_C)
    rows_PKS = keys.filled_PKS
    factors: list[Tensor] = []
    crossed_PKS = torch.empty_like(rows_PKS)
    first = 0
    for layer, (value_PHTD, carried_HDC) in enumerate(zip(keys.values_PHTD, step.carried_HDC, strict=True)):
        if layer > 0:
            factors.append(step.constants_C[layer - 1].expand(prompts, 1, -1))
            crossed_PKS[:, first] = shared.constants_S[layer - 1]
            first += 1
        factors.append(torch.matmul(value_PHTD, carried_HDC).flatten(1, 2))
        last = first + factors[-1].shape[1]
        _products(value_PHTD, shared.carried_HDS[layer], crossed_PKS[:, first:last])
        first = last
    factors_PKC = torch.cat(factors, dim=1)
    gram_PKK = torch.bmm(factors_PKC, factors_PKC.transpose(1, 2))
    cross_P1S = crossed_PKS.mul_(rows_PKS).sum(dim=1, keepdim=True)
    own_P1S = torch.bmm(gram_PKK, rows_PKS).mul_(rows_PKS).sum(dim=1, keepdim=True)

    if keys.rho_P1S is None:
        parts_P1S, cross_P1S = own_P1S + shared.square_S, 2 * cross_P1S
    else:
        keys.alpha_P1S = keys.rho_P1S if keys.alpha_P1S is None else keys.alpha_P1S * keys.rho_P1S
        parts_P1S = own_P1S + keys.alpha_P1S.square() * shared.square_S
        cross_P1S = 2 * keys.alpha_P1S * cross_P1S
    variance_P1S = (parts_P1S + cross_P1S) / channels + step.eps
    ratio = (parts_P1S / (channels * variance_P1S)).abs().max()
    keys.cancellation = torch.maximum(keys.cancellation, ratio)
    keys.rho_P1S = variance_P1S.rsqrt()
    keys.factors_PKC = factors_PKC * step.scale_C


def _scores(
    keys: ImageKeys, token_PHTD: Tensor, image_HDS: Tensor, position_HDS: Tensor, weight_HDC: Tensor
) -> Tensor:
    """float[P, R, S]: products of the tokens' side with the image tokens' projection by `weight_HDC`."""
    prompts, heads, tokens, _ = token_PHTD.shape
    scores_PRS = image_HDS.new_empty(prompts, heads * tokens, image_HDS.shape[-1])
    _products(token_PHTD, image_HDS, scores_PRS)
    if keys.rho_P1S is None:
        return scores_PRS
    if keys.alpha_P1S is not None:
        scores_PRS.mul_(keys.alpha_P1S)
    folded_PRC = torch.matmul(token_PHTD, weight_HDC).flatten(1, 2)
    folded_PRK = torch.bmm(folded_PRC, keys.factors_PKC.transpose(1, 2))
    scores_PRS.baddbmm_(folded_PRK, keys.filled_PKS)
    scores_PRS.mul_(keys.rho_P1S)
    _products(token_PHTD, position_HDS, scores_PRS, beta=1.0)
    return scores_PRS


def _products(token_PHTD: Tensor, image_HDS: Tensor, out_PRS: Tensor, *, beta: float = 0.0) -> None:
    """Head by head, token_PHTD @ image_HDS into `out_PRS`: a broadcast matmul would copy the image's side."""
    prompts, _, tokens, _ = token_PHTD.shape
    for head, image_DS in enumerate(image_HDS):
        out_PTS = out_PRS[:, head * tokens : (head + 1) * tokens]
        out_PTS.baddbmm_(token_PHTD[:, head], image_DS.expand(prompts, -1, -1), beta=beta)


def _mix(share_PRS: Tensor, value_HDS: Tensor) -> Tensor:
    """float[P, H, T, D]: head by head, the values under the shares."""
    prompts, heads = len(share_PRS), len(value_HDS)
    share_PHTS = share_PRS.unflatten(1, (heads, -1))
    mixed = [
        torch.bmm(share_PHTS[:, head], value_DS.T.expand(prompts, -1, -1))
        for head, value_DS in enumerate(value_HDS)
    ]
    return torch.stack(mixed, dim=1)


def _stage(attention: Any, position_CS: Tensor, shift_C: Tensor, step: Step | None) -> Stage:
    cross = Cross.of(attention)
    return Stage(cross, _project(cross.key.weight_HDC, position_CS), shift_C, step)


def _centre(weight: Tensor) -> Tensor:
    return weight - weight.mean(dim=-1, keepdim=True)


def _project(weight_HDC: Tensor, image_CS: Tensor) -> Tensor:
    heads, width, channels = weight_HDC.shape
    return (weight_HDC.reshape(heads * width, channels) @ image_CS).view(heads, width, -1)
