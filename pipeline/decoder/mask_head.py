"""The mask head: two transposed convolutions, then a product with each wanted output's hypernetwork.

`segment_anything`'s `output_upscaling` and `output_hypernetworks_mlps` as matrix products. A transposed
convolution of kernel 2 and stride 2 is one linear map per pixel and position under it (y, x). Each map is cut
by y, so that a product's rows are pixels of one row of the finer image, in order: nothing is shuffled.

Pixels may be in a narrower number format (`dtype`); the last product, which gives the logits, is in the
weights'.

Shapes: S image tokens (H x W), C channels, E = C / 4 channels after the first map, G = C / 8 after the
second, M wanted outputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.decoder.lowrank import Scratch


class Halves(NamedTuple):
    """The first convolution's output, its upper and lower rows: each float[S, 2 E], x outermost."""

    upper: Tensor
    lower: Tensor


class MaskHead:
    """The weights of the mask head of a `segment_anything.modeling.MaskDecoder`, laid out for products.

    Args:
        mask_decoder: whose head it is.
        size_hw: of the embedding.
        dtype: of pixels and of the maps on them.
    """

    def __init__(self, mask_decoder: Any, size_hw: tuple[int, int], dtype: torch.dtype) -> None:
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

    def from_tokens(self, image_SC: Tensor) -> Halves:
        """The first convolution, on image tokens in the weights' format."""
        halves = (torch.addmm(self.first_bias_E, image_SC, weight) for weight in self.first_CE)
        return Halves(*(half.to(self._dtype) for half in halves))

    def hypernetworks(self, mask_tokens_PMC: Tensor, output_tokens: tuple[int, ...]) -> Tensor:
        """float[P, M, G]: each output's direction among the finest channels."""
        networks = [self._hypernetworks[token] for token in output_tokens]
        return torch.stack([mlp(mask_tokens_PMC[:, m]) for m, mlp in enumerate(networks)], dim=1)

    def logits(self, halves: Halves, hyper_MG: Tensor, out_Mhw: Tensor, scratch: Scratch) -> None:
        """The rest of the head, for one prompt's wanted outputs, into `out_Mhw` (float[M, 4 H, 4 W])."""
        height, width = self._size_hw
        outputs, channels = hyper_MG.shape
        out_rows = out_Mhw.view(outputs, height, 2, 2, 4 * width)
        for upper, half in enumerate(halves):
            pixels = half.view(-1, half.shape[1] // 2)
            scale, shift = self._norm_weight_E, self._norm_bias_E
            pixels = _activate(
                self._activations[0], F.layer_norm(pixels, pixels.shape[1:], scale, shift, self._eps)
            )
            for lower, weight_EG in enumerate(self._second_EG):
                fine = scratch.take("fine", len(pixels), weight_EG.shape[1])
                torch.addmm(self._second_bias_G, pixels, weight_EG, out=fine)
                fine = _activate(self._activations[1], fine).to(hyper_MG.dtype)
                rows = torch.mm(hyper_MG, fine.view(-1, channels).T)
                out_rows[:, :, upper, lower] = rows.view(outputs, height, 4 * width)


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
