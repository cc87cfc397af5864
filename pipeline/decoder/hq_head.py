"""SAM-HQ's further mask: two convolutions over the finest channels, the image's own features, one direction.

    (1)  mask = hyper . (conv2(gelu(norm(conv1(finest)))) + features)
    (2)       = conv_(hyper . W2)(gelu(norm(conv1(finest)))) + hyper . (b2 + features)

The second convolution is linear and only its product with `hyper` is wanted, so in (2) the product comes
first: one output channel instead of G. As it is one, nine products a pixel at once and nine shifted sums do.

On a CPU fused/head.py does all this in one pass.

What it does not do: the transposed convolutions before it (mask_head.py).

Shapes: S pixels of the finest grid (4 H x 4 W), G channels of it, E channels between the convolutions.

Source: segment_anything_hq/modeling/mask_decoder_hq.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class HqPrompt(NamedTuple):
    """What a prompt's further mask is made of, beside the finest channels.

    Attributes:
        hyper_G: the HQ token's direction.
        features_SG: of the image, see `HqHead.features`.
    """

    hyper_G: Tensor
    features_SG: Tensor


class HqHead:
    """The weights of SAM-HQ's further mask.

    Args:
        mask_decoder: with `hf_mlp`, `embedding_encoder`, `compress_vit_feat`, `embedding_maskfeature`.
        size_hw: of the embedding.
        dtype: of pixels and of the maps on them.
    """

    def __init__(self, mask_decoder: Any, size_hw: tuple[int, int], dtype: torch.dtype) -> None:
        first, norm, self._activation, second = mask_decoder.embedding_maskfeature
        self._decoder = mask_decoder
        self._size_hw = (4 * size_hw[0], 4 * size_hw[1])
        self._dtype = dtype
        self._first_EGyx = first.weight.detach().to(dtype, memory_format=torch.channels_last)
        self._first_bias_E = first.bias.detach().to(dtype)
        self._norm = (norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), float(norm.eps))
        self._second_GEyx = second.weight.detach()
        self._second_bias_G = second.bias.detach()

    def features(self, embedding_CHW: Tensor, early_CHW: Tensor) -> Tensor:
        """float[S, G]: the embedding and the encoder's early features at the finest grid, for all prompts."""
        final_1Ghw = self._decoder.embedding_encoder(embedding_CHW[None])
        early_1Ghw = self._decoder.compress_vit_feat(early_CHW[None].contiguous())
        features_SG: Tensor = (final_1Ghw + early_1Ghw)[0].flatten(1).T + self._second_bias_G
        return features_SG.contiguous()

    def hypernetwork(self, tokens_PC: Tensor) -> Tensor:
        """float[P, G]: the direction of each prompt's HQ token among the finest channels."""
        hyper_PG: Tensor = self._decoder.hf_mlp(tokens_PC)
        return hyper_PG

    def logits(self, finest_SG: Tensor, prompt: HqPrompt) -> Tensor:
        """float[4 H, 4 W]: one prompt's HQ mask.

        Args:
            finest_SG: the upscaled image tokens, row by row.
            prompt: whose.
        """
        hyper_G, features_SG = prompt
        height, width = self._size_hw
        finest_1Ghw = finest_SG.view(1, height, width, -1).permute(0, 3, 1, 2)
        between_1Ehw = F.conv2d(finest_1Ghw, self._first_EGyx, self._first_bias_E, padding=1)
        between_SE = between_1Ehw.permute(0, 2, 3, 1).reshape(height * width, -1)
        weight, bias, eps = self._norm
        between_SE = self._activation(F.layer_norm(between_SE, weight.shape, weight, bias, eps))

        # (2): the second convolution under the direction, one product a neighbour
        kernel_9E = torch.einsum("g,geyx->yxe", hyper_G, self._second_GEyx).flatten(0, 1)
        by_neighbour_9hw = (kernel_9E.to(self._dtype) @ between_SE.T).to(hyper_G.dtype).view(9, height, width)
        padded = F.pad(by_neighbour_9hw, (1, 1, 1, 1))
        mask_hw = (features_SG @ hyper_G).view(height, width)
        for neighbour in range(9):
            y, x = divmod(neighbour, 3)
            mask_hw += padded[neighbour, y : y + height, x : x + width]
        return mask_hw
