"""The mask head: two transposed convolutions, then a product with each wanted output's hypernetwork.

`segment_anything`'s `output_upscaling` and `output_hypernetworks_mlps` as matrix products. A transposed
convolution of kernel 2 and stride 2 is one linear map per pixel and position under it (y, x). Each map is cut
by y, so that a product's rows are pixels of one row of the finer image, in order: nothing is shuffled.

Families whose head adds a map of the image to each convolution's output (forms.py) have these maps laid out
likewise, once an image; the bias of the convolution is in them. SAM-HQ's further mask is hq_head.py's.

Pixels may be in a narrower number format (`dtype`); the last product, which gives the logits, is in the
weights'.

Shapes: S image tokens (H x W), C channels, E = C / 4 channels after the first map, G = C / 8 after the
second, M wanted outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.decoder.forms import SAM, DecoderForm
from maskmill.pipeline.decoder.hq_head import HqHead, HqPrompt
from maskmill.pipeline.decoder.lowrank_steps import Scratch


class Halves(NamedTuple):
    """The first convolution's output, its upper and lower rows: each float[S, 2 E], x outermost."""

    upper: Tensor
    lower: Tensor


@dataclass(frozen=True)
class HeadMaps:
    """What the head adds of an image, the same for all its prompts.

    Attributes:
        middle: to the first convolution's output; None for most families.
        fine: to the second's, by upper and then by lower row: float[2 S, 2 G], or the convolution's bias.
        hq_SG: to SAM-HQ's further mask, its G channels at every pixel of the finest grid.
    """

    middle: Halves | None
    fine: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    hq_SG: Tensor | None = None


class Wanted(NamedTuple):
    """One prompt's outputs that are to be made.

    Attributes:
        hyper_MG: their directions among the finest channels.
        out_Mhw: float32[M, 4 H, 4 W]: is written.
        hq: what SAM-HQ's further mask is made of.
    """

    hyper_MG: Tensor
    out_Mhw: Tensor
    hq: HqPrompt | None = None


class MaskHead:
    """The weights of a mask decoder's head, laid out for products.

    Args:
        mask_decoder: whose head it is: `segment_anything.modeling.MaskDecoder`, or a family's (forms.py).
        size_hw: of the embedding.
        dtype: of pixels and of the maps on them.
        form: of the decoder.
    """

    def __init__(
        self, mask_decoder: Any, size_hw: tuple[int, int], dtype: torch.dtype, form: DecoderForm = SAM
    ) -> None:
        first, norm, activation_1, second, activation_2 = mask_decoder.output_upscaling
        self._size_hw = size_hw
        self.first_CE = Halves(*_cut_by_row(first.weight))
        self.first_bias_E = first.bias.detach().repeat(2)
        self._second_EG = tuple(weight.to(dtype) for weight in _cut_by_row(second.weight))
        self._second_bias_G = second.bias.detach().repeat(2).to(dtype)
        self._norm_weight_E, self._norm_bias_E = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
        self._eps: float = norm.eps
        self._dtype = dtype
        self._activations = (activation_1, activation_2)
        self._hypernetworks = mask_decoder.output_hypernetworks_mlps
        self._finer_maps = form.finer_maps
        self.hq = HqHead(mask_decoder, size_hw, dtype) if form.hq_token else None

    def maps(self, embedding_CHW: Tensor, maps: Sequence[Tensor]) -> HeadMaps:
        """What the head adds of an image.

        Args:
            embedding_CHW: float[C, H, W].
            maps: further maps of the image, as `ImageEmbedding.maps` has them: of a family with finer maps
                float[G, 4 H, 4 W] and float[E, 2 H, 2 W]; of SAM-HQ the encoder's early features.

        Raises:
            ValueError: another number of maps than the family has, or of another shape.
        """
        bias = self._second_bias_G
        plain = ((bias, bias), (bias, bias))
        if not self._finer_maps:
            wanted = 0 if self.hq is None else 1
            if len(maps) != wanted:
                raise ValueError(f"this decoder takes {wanted} further maps of an image, got {len(maps)}")
            return HeadMaps(
                None, plain, None if self.hq is None else self.hq.features(embedding_CHW, maps[0])
            )

        height, width = self._size_hw
        channels = (self._second_bias_G.shape[0] // 2, self.first_bias_E.shape[0] // 2)
        expected = [(channels[0], 4 * height, 4 * width), (channels[1], 2 * height, 2 * width)]
        if [tuple(one.shape) for one in maps] != expected:
            shapes = [tuple(one.shape) for one in maps]
            raise ValueError(f"this decoder takes further maps of shapes {expected}, got {shapes}")
        fine_GHW, middle_EHW = maps
        upper, lower = (self._fine_rows(fine_GHW, row) for row in (0, 1))
        return HeadMaps(self._middle(middle_EHW), (upper, lower))

    def _middle(self, middle_EHW: Tensor) -> Halves:
        """A map of 2 H x 2 W in the first convolution's layout."""
        height, width = self._size_hw
        by_row = middle_EHW.view(-1, height, 2, width, 2).permute(2, 1, 3, 4, 0)
        return Halves(*(half.reshape(height * width, -1).to(self._dtype) for half in by_row))

    def _fine_rows(self, fine_GHW: Tensor, upper: int) -> tuple[Tensor, Tensor]:
        """A map of 4 H x 4 W in the second convolution's layout, its bias added: one part of its rows."""
        height, width = self._size_hw
        by_row = fine_GHW.view(-1, height, 2, 2, width, 4)[:, :, upper].permute(2, 1, 3, 4, 0)
        first, second = (
            (part.reshape(2 * height * width, -1) + self._second_bias_G).to(self._dtype) for part in by_row
        )
        return first, second

    def from_tokens(self, image_SC: Tensor, maps: HeadMaps) -> Halves:
        """The first convolution, on image tokens in the weights' format."""
        halves = [
            torch.addmm(self.first_bias_E, image_SC, weight).to(self._dtype) for weight in self.first_CE
        ]
        if maps.middle is not None:
            halves = [half.add_(middle) for half, middle in zip(halves, maps.middle, strict=True)]
        return Halves(*halves)

    def hypernetworks(self, mask_tokens_PMC: Tensor, output_tokens: tuple[int, ...]) -> Tensor:
        """float[P, M, G]: each output's direction among the finest channels."""
        networks = [self._hypernetworks[token] for token in output_tokens]
        return torch.stack([mlp(mask_tokens_PMC[:, m]) for m, mlp in enumerate(networks)], dim=1)

    def hq_prompts(self, tokens_PTC: Tensor, maps: HeadMaps) -> Sequence[HqPrompt | None]:
        """Of each prompt what SAM-HQ's further mask is made of; None for other families.

        Args:
            tokens_PTC: after the mask tokens, SAM-HQ's own first.
            maps: of the image.
        """
        if self.hq is None or maps.hq_SG is None:
            return [None] * len(tokens_PTC)
        return [HqPrompt(hyper_G, maps.hq_SG) for hyper_G in self.hq.hypernetwork(tokens_PTC[:, 0])]

    def logits(self, halves: Halves, maps: HeadMaps, wanted: Wanted, scratch: Scratch) -> None:
        """The rest of the head, for one prompt.

        Args:
            halves: the first convolution's output; taken over.
            maps: of the image.
            wanted: of the prompt.
            scratch: in the head's format.
        """
        hyper_MG, out_Mhw, hq = wanted
        height, width = self._size_hw
        outputs, channels = hyper_MG.shape
        out_rows = out_Mhw.view(outputs, height, 2, 2, 4 * width)
        finest = None if self.hq is None else scratch.take("finest", height, 2, 2, 4 * width * channels)
        for upper, half in enumerate(halves):
            pixels = half.view(-1, half.shape[1] // 2)
            scale, shift = self._norm_weight_E, self._norm_bias_E
            pixels = _activate(
                self._activations[0], F.layer_norm(pixels, pixels.shape[1:], scale, shift, self._eps)
            )

            for lower, weight_EG in enumerate(self._second_EG):
                fine = scratch.take("fine", len(pixels), weight_EG.shape[1])
                torch.addmm(maps.fine[upper][lower], pixels, weight_EG, out=fine)
                fine = _activate(self._activations[1], fine)
                if finest is not None:
                    finest[:, upper, lower] = fine.view(height, -1)
                rows = torch.mm(hyper_MG, fine.to(hyper_MG.dtype).view(-1, channels).T)
                out_rows[:, :, upper, lower] = rows.view(outputs, height, 4 * width)

        if self.hq is not None:
            assert finest is not None and hq is not None
            out_Mhw += self.hq.logits(finest.view(-1, channels), hq)


def _cut_by_row(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A transposed convolution's weight [in, out, 2, 2] as maps [in, 2 x out], one a row under a pixel."""
    assert weight.shape[2:] == (2, 2), "a kernel of 2 with stride 2"
    upper, lower = (weight.detach()[:, :, y].transpose(1, 2).flatten(1).contiguous() for y in range(2))
    return upper, lower


def _activate(activation: Any, values: Tensor) -> Tensor:
    """The activation, in place where it is the exact GELU."""
    if isinstance(activation, nn.GELU) and activation.approximate == "none":
        activated: Tensor = torch.ops.aten.gelu_(values)
        return activated
    other: Tensor = activation(values)
    return other
