"""The low-rank decoder's part that does not depend on prompts: weights laid out, and an image's projections.

`build_stages` works once a model, `share` once an image; lowrank.py says what for, and has the algebra. Both
compute in the weights' number format; `share` and `stages_in` hand out what prompts multiply with in another
one, if asked.

Shapes: P prompts, T tokens, H heads, D channels of a head, C channels, S image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        return projected.reshape(*tokens_PTC.shape[:2], heads, width).transpose(1, 2)

    def image(self, image_CS: Tensor) -> Tensor:
        """float[H, D, S]: the image tokens' projection, without bias."""
        return _project(self.weight_HDC, image_CS)


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
        """Of the scores: one over the root of a head's width."""
        return float(self.query.weight_HDC.shape[1] ** -0.5)

    @classmethod
    def of(cls, attention: Any) -> Cross:
        """From a `segment_anything.modeling.transformer.Attention`."""
        heads = attention.num_heads

        def cut(linear: Any) -> Projection:
            """A linear layer, head by head."""
            weight, bias = linear.weight.detach(), linear.bias.detach()
            return Projection(weight.reshape(heads, -1, weight.shape[1]), bias.reshape(heads, 1, -1))

        output_CD = attention.out_proj.weight.detach()
        output_HDC = output_CD.T.contiguous().view(heads, -1, len(output_CD))
        query, key, value = cut(attention.q_proj), cut(attention.k_proj), cut(attention.v_proj)
        return cls(query, key, value, output_HDC, attention.out_proj.bias.detach())

    def constant_C(self) -> Tensor:
        """What value and output biases add to each output, whatever the shares."""
        return torch.einsum("hid,hdc->c", self.value.bias_H1D, self.output_HDC) + self.output_bias_C


@dataclass(frozen=True)
class Step:
    """The weights that turn one state of the image tokens into the next: attention to tokens, sum, norm.

    Attributes:
        carried_HDC: for each layer so far, this one's last, from its values to this state's centred channels.
        constants_C: for each layer so far, its constant, likewise.
        scale_C, eps: LayerNorm's. Its bias is the next state's `shift_C`.
    """

    attention: Cross
    query_position_HDS: Tensor
    carried_HDC: tuple[Tensor, ...]
    constants_C: tuple[Tensor, ...]
    scale_C: Tensor
    eps: float


@dataclass(frozen=True)
class Stage:
    """The weights around one state of the image tokens: before each layer, and after the last (no step)."""

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
    length_S: Tensor | None = None


@dataclass(frozen=True)
class SharedImage:
    """Every state's shared part, and the last state's shared channels X (C x S)."""

    stages: tuple[SharedStage, ...]
    last_CS: Tensor

    @property
    def like(self) -> Tensor:
        """A tensor in the number format of products with image tokens."""
        return self.stages[0].key_HDS


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
    for layer in transformer.layers:
        attention, norm = Cross.of(layer.cross_attn_image_to_token), layer.norm4
        carried = [_centre(weight) for weight in (*carried, attention.output_HDC)]
        constants = [_centre(row) for row in (*constants, attention.constant_C() + shift_C)]
        position = attention.query.image(position_CS + shift_C[:, None])
        position = position + attention.query.bias_H1D.transpose(1, 2)
        scale_C = norm.weight.detach()
        step = Step(attention, position, tuple(carried), tuple(constants), scale_C, norm.eps)
        stages.append(_stage(layer.cross_attn_token_to_image, position_CS, shift_C, step))
        carried = [weight * scale_C for weight in carried]
        constants = [row * scale_C for row in constants]
        shift_C = norm.bias.detach()
    stages.append(_stage(transformer.final_attn_token_to_image, position_CS, shift_C, None))
    return tuple(stages)


def stages_in(stages: tuple[Stage, ...], dtype: torch.dtype) -> tuple[Stage, ...]:
    """The same stages with what is multiplied at every image token, the positions, in another format."""

    def convert(stage: Stage) -> Stage:
        """Its positions in the format, the rest as it is."""
        step = stage.step and replace(stage.step, query_position_HDS=stage.step.query_position_HDS.to(dtype))
        return replace(stage, key_position_HDS=stage.key_position_HDS.to(dtype), step=step)

    return tuple(convert(stage) for stage in stages)


def share(stages: Sequence[Stage], image_CS: Tensor, dtype: torch.dtype = torch.float32) -> SharedImage:
    """Project an image's tokens once for all prompts.

    Args:
        stages: as `build_stages` gives them.
        image_CS: float[C, S], the dense prompt embedding added.
        dtype: of the projections; lengths, constants and the last channels keep the image's own.
    """
    shared: list[SharedStage] = []
    for number, stage in enumerate(stages):
        key, value = stage.attention.key.image(image_CS), stage.attention.value.image(image_CS)
        if number == 0:  # alpha and rho are one: the position joins the image
            key = key + stage.key_position_HDS
        step = stage.step
        if step is None:
            shared.append(SharedStage(key.to(dtype), value.to(dtype)))
            continue
        query = step.attention.query.image(image_CS)
        if number == 0:
            query = query + step.query_position_HDS
        image_CS = image_CS - image_CS.mean(dim=0)
        carried = tuple(_project(weight, image_CS).to(dtype) for weight in step.carried_HDC)
        constants = tuple(row @ image_CS for row in step.constants_C)
        length_S = torch.linalg.vector_norm(image_CS, dim=0)
        key, value, query = key.to(dtype), value.to(dtype), query.to(dtype)
        shared.append(SharedStage(key, value, query, carried, constants, length_S))
        image_CS = image_CS * step.scale_C[:, None]
    return SharedImage(tuple(shared), image_CS)


def _stage(attention: Any, position_CS: Tensor, shift_C: Tensor, step: Step | None) -> Stage:
    cross = Cross.of(attention)
    return Stage(cross, cross.key.image(position_CS), shift_C, step)


def _centre(weight: Tensor) -> Tensor:
    return weight - weight.mean(dim=-1, keepdim=True)


def _project(weight_HDC: Tensor, image_CS: Tensor) -> Tensor:
    heads, width, channels = weight_HDC.shape
    return (weight_HDC.reshape(heads * width, channels) @ image_CS).view(heads, width, -1)
