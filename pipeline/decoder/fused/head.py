"""The mask head on a CPU in one pass: blocks of pixels that stay in cache from image tokens to logits.

`mask_head.py` does the same in torch's operations, each of which reads and writes all pixels; here a block
goes through all steps before the next begins (head_kernels.py):

    (1)  first = rho (Z^T (B W1)) + weight (X W1) + bias, and the family's map of the image
    (2)  LayerNorm over a pixel's channels, GELU
    (3)  fine = first W2 + bias or map, GELU
    (4)  logits = hypernetworks . fine, written to their places among 4 H x 4 W
    (5)  of SAM-HQ, whose (3) is kept: its further mask, by hq_head.py's (2)

Image tokens come in lowrank.py's form, of which rho, weight, Z, B, X are the parts. Channels are rows, so
that each loop runs along pixels. GELU is the exact one: erf by a quotient of polynomials, within 1e-6 of it.

What it does not do: narrower formats, other activations, image tokens in dense form; nor machines without
scipy: there `of` gives None, or the decoder takes mask_head.py's way.

Shapes: S image tokens (H x W), C channels, Q = 4 positions under a token (y, x), E = C / 4 channels after the
first map, R = 4 positions under each of them, G = C / 8 channels after the second, K rows of Z, M wanted
outputs, L blocks of N image tokens, the last one filled up; Y x X pixels of the finest grid, a border of
zeros around them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskmill.pipeline.decoder.forms import DecoderForm
from maskmill.pipeline.decoder.fused.blocks import Floats, array, in_blocks
from maskmill.pipeline.decoder.fused.head_kernels import (
    FurtherWeights,
    FusedImage,
    HeadWeights,
    Norm,
    further,
    head,
)
from maskmill.pipeline.decoder.hq_head import HqPrompt
from maskmill.pipeline.decoder.lowrank import ImageKeys
from maskmill.pipeline.decoder.lowrank_steps import Scratch
from maskmill.pipeline.decoder.mask_head import Wanted
from maskmill.pipeline.machine.blas import available

_NOTHING: Floats = np.empty((0, 0, 0), np.float32)


class FusedHead:
    """A mask decoder's head for image tokens in low-rank form.

    Args:
        mask_decoder: as `MaskHead`'s.
        shift_C: of the image tokens' last state, see `Stage`.
        form: of the decoder.
    """

    def __init__(self, mask_decoder: Any, shift_C: Tensor, form: DecoderForm) -> None:
        first, norm, _, second, _ = mask_decoder.output_upscaling
        self._first_AC = _by_position(first.weight)
        bias_A = self._first_AC @ shift_C + first.bias.detach().repeat(4)
        self._weights = HeadWeights(
            array(bias_A), _norm(norm), array(_by_position(second.weight)), array(second.bias.detach())
        )
        self._further = FusedFurther(mask_decoder) if form.hq_token else None

    @classmethod
    def of(
        cls, mask_decoder: Any, shift_C: Tensor, form: DecoderForm, dtype: torch.dtype
    ) -> FusedHead | None:
        """The fused head, or None where it doesn't serve: see the file's head.

        Args:
            mask_decoder, shift_C: as above.
            form: of the decoder.
            dtype: that pixels are to be in.
        """
        activations = [mask_decoder.output_upscaling[2], mask_decoder.output_upscaling[4]]
        if form.hq_token:
            activations.append(mask_decoder.embedding_maskfeature[2])
        exact = all(isinstance(one, nn.GELU) and one.approximate == "none" for one in activations)
        serves = exact and dtype == shift_C.dtype == torch.float32 and shift_C.device.type == "cpu"
        return cls(mask_decoder, shift_C, form) if serves and available() else None

    def image(self, last_CS: Tensor, maps: tuple[Tensor, ...]) -> FusedImage:
        """The part that an image's prompts share.

        Args:
            last_CS: X, the last state's shared channels.
            maps: none, or of a family with finer maps float[G, 4 H, 4 W] and float[E, 2 H, 2 W].
        """
        first_LAN = in_blocks(self._first_AC @ last_CS)
        if not maps:
            return FusedImage(first_LAN, first_LAN[:0], first_LAN[:0])

        fine_GHW, middle_EHW = maps
        height, width = middle_EHW.shape[1] // 2, middle_EHW.shape[2] // 2
        middle = middle_EHW.view(-1, height, 2, width, 2).permute(2, 4, 0, 1, 3)
        fine = fine_GHW.view(-1, height, 2, 2, width, 2, 2).permute(2, 5, 3, 6, 0, 1, 4)
        fine = fine + torch.from_numpy(self._weights.second_bias_G)[:, None, None]
        return FusedImage(first_LAN, *(in_blocks(one.reshape(-1, height * width)) for one in (middle, fine)))

    def logits(
        self, image: FusedImage, keys: ImageKeys, prompt: int, wanted: Wanted, scratch: Scratch
    ) -> None:
        """One prompt's wanted outputs.

        Args:
            image: of `image`.
            keys: of the prompt's chunk.
            prompt: its place there.
            wanted: of the prompt.
            scratch: float32.
        """
        hyper_MG, out_Mhw, hq = wanted
        finest = _NOTHING
        if self._further is not None:
            finest = self._further.room(out_Mhw.shape[1], out_Mhw.shape[2], scratch)
        assert keys.rho_P1S is not None, "a transformer has at least one layer"
        rho_S = keys.rho_P1S[prompt, 0]
        weight_S = rho_S if keys.alpha_P1S is None else rho_S * keys.alpha_P1S[prompt, 0]
        mapped_AK = self._first_AC @ keys.factors_PKC[prompt].T
        head(
            image,
            self._weights,
            array(weight_S),
            array(rho_S),
            array(keys.filled_PKS[prompt]),
            array(mapped_AK),
            array(hyper_MG),
            out_Mhw.numpy(),
            finest,
        )
        if self._further is not None:
            assert hq is not None, "SAM-HQ's head has a token of its own"
            out_Mhw += self._further.logits(finest, hq, scratch)


class FusedFurther:
    """(5): SAM-HQ's further mask, on the finest channels that a prompt's pass has left.

    Args:
        mask_decoder: with `embedding_maskfeature`.
    """

    def __init__(self, mask_decoder: Any) -> None:
        first, norm, _, second = mask_decoder.embedding_maskfeature
        by_column = first.weight.detach().permute(3, 0, 2, 1).flatten(2)
        self._weights = FurtherWeights(array(by_column), array(first.bias.detach()), _norm(norm))
        self._second_9EG = second.weight.detach().permute(2, 3, 1, 0).flatten(0, 1).contiguous()
        self._channels: int = first.in_channels

    def room(self, height: int, width: int, scratch: Scratch) -> Floats:
        """float32[Y + 2, G, X + 2] for the finest channels, zeros along its border.

        Args:
            height, width: Y and X.
            scratch: that keeps it from prompt to prompt.
        """
        finest_YGX = scratch.take("finest", height + 2, self._channels, width + 2)
        for border in (finest_YGX[0], finest_YGX[-1], finest_YGX[:, :, 0], finest_YGX[:, :, -1]):
            border.zero_()
        return array(finest_YGX)

    def logits(self, finest_YGX: Floats, hq: HqPrompt, scratch: Scratch) -> Tensor:
        """float[Y, X]: one prompt's further mask.

        Args:
            finest_YGX: of `room`, filled.
            hq: of the prompt.
            scratch: float32.
        """
        rows, _, columns = finest_YGX.shape
        mask_YX = scratch.take("further", rows, columns).zero_()
        kernel_9E = self._second_9EG @ hq.hyper_G
        further(finest_YGX, self._weights, array(kernel_9E), mask_YX.numpy())
        return (hq.features_SG @ hq.hyper_G).view(rows - 2, columns - 2) + mask_YX[1:-1, 1:-1]


def warm_up() -> None:
    """Has the mask head's kernels ready, where they serve: loads or compiles them, but for SAM-HQ's."""
    if not available():
        return

    def some(*shape: int) -> Floats:
        """Zeros."""
        return np.zeros(shape, np.float32)

    norm = Norm(some(2), some(2), 1e-6)
    weights = HeadWeights(some(8), norm, some(4, 2), some(1))
    image = FusedImage(some(1, 8, 4), some(0, 8, 4), some(0, 8, 4))
    head(image, weights, some(4), some(4), some(3, 4), some(8, 3), some(1, 1), some(1, 8, 8), _NOTHING)


def _norm(norm: Any) -> Norm:
    """A normalisation's weights."""
    return Norm(array(norm.weight.detach()), array(norm.bias.detach()), float(norm.eps))


def _by_position(weight: Tensor) -> Tensor:
    """A transposed convolution's weight [in, out, 2, 2] as one map [4 out, in], positions outermost."""
    assert weight.shape[2:] == (2, 2), "a kernel of 2 with stride 2"
    return weight.detach().permute(2, 3, 1, 0).reshape(-1, weight.shape[0]).contiguous()
