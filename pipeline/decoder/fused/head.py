"""The mask head on a CPU in one pass: blocks of pixels that stay in cache from image tokens to logits.

`mask_head.py` does the same in torch's operations, each of which reads and writes all pixels; here a block
goes through all steps before the next begins. One prompt is one call, without the GIL:

    (1)  first = rho (Z^T (B W1)) + weight (X W1) + bias, and the family's map of the image
    (2)  LayerNorm over a pixel's channels, GELU
    (3)  fine = first W2 + bias or map, GELU
    (4)  logits = hypernetworks . fine, written to their places among 4 H x 4 W

Image tokens come in lowrank.py's form, of which rho, weight, Z, B, X are the parts. Channels are rows, so
that each loop runs along pixels. GELU is the exact one: erf by a quotient of polynomials, within 1e-6 of it.

What it does not do: narrower formats, other activations, SAM-HQ's further mask, image tokens in dense form;
nor machines without scipy: there `of` gives None, or the decoder takes mask_head.py's way.

Shapes: S image tokens (H x W), C channels, Q = 4 positions under a token (y, x), E = C / 4 channels after the
first map, R = 4 positions under each of them, G = C / 8 channels after the second, K rows of Z, M wanted
outputs, L blocks of N image tokens, the last one filled up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from maskmill.pipeline.decoder.forms import DecoderForm
from maskmill.pipeline.decoder.fused.blocks import Floats, array, in_blocks
from maskmill.pipeline.decoder.lowrank import ImageKeys
from maskmill.pipeline.machine.blas import available, sgemm
from maskmill.pipeline.machine.compiled import arithmetic_kernel

# erf(z) = z P(z^2) / Q(z^2) for |z| <= 4, beyond which it is one; highest powers first (Eigen's, MPL 2)
_P = tuple(
    np.float32(value)
    for value in (
        *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05),
        *(-7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02),
    )
)
_Q = tuple(
    np.float32(value)
    for value in (
        *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03),
        *(-7.37332916720468e-03, -1.42647390514189e-02),
    )
)
_HALF, _ONE, _FOUR, _ROOT_HALF = (np.float32(value) for value in (0.5, 1.0, 4.0, 0.5**0.5))


class FusedImage(NamedTuple):
    """What all prompts on an image share: float32, by block, then position and channel, then token.

    A block's rows lie together, or their stride, a power of two, would have them share a few lines of cache.

    Attributes:
        first_LAN: X W1, A = Q E.
        middle_LAN: the family's map beside it; no block for most.
        fine_LBN: the family's map beside the second, B = Q R G, its bias in it; no block for most.
    """

    first_LAN: Floats
    middle_LAN: Floats
    fine_LBN: Floats


class _Weights(NamedTuple):
    """Of the head, float32."""

    bias_A: Floats
    norm_weight_E: Floats
    norm_bias_E: Floats
    eps: float
    second_DE: Floats
    second_bias_G: Floats


class FusedHead:
    """A mask decoder's head for image tokens in low-rank form.

    Args:
        mask_decoder: as `MaskHead`'s.
        shift_C: of the image tokens' last state, see `Stage`.
    """

    def __init__(self, mask_decoder: Any, shift_C: Tensor) -> None:
        first, norm, _, second, _ = mask_decoder.output_upscaling
        self._first_AC = _by_position(first.weight)
        bias_A = self._first_AC @ shift_C + first.bias.detach().repeat(4)
        self._weights = _Weights(
            array(bias_A),
            array(norm.weight.detach()),
            array(norm.bias.detach()),
            norm.eps,
            array(_by_position(second.weight)),
            array(second.bias.detach()),
        )

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
        activations = mask_decoder.output_upscaling[2], mask_decoder.output_upscaling[4]
        exact = all(isinstance(one, nn.GELU) and one.approximate == "none" for one in activations)
        serves = exact and dtype == shift_C.dtype == torch.float32 and not form.hq_token
        return cls(mask_decoder, shift_C) if serves and shift_C.device.type == "cpu" and available() else None

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
        self, image: FusedImage, keys: ImageKeys, prompt: int, hyper_MG: Tensor, out_Mhw: Tensor
    ) -> None:
        """One prompt's wanted outputs, into `out_Mhw` (float[M, 4 H, 4 W]).

        Args:
            image: of `image`.
            keys: of the prompt's chunk.
            prompt: its place there.
            hyper_MG: the wanted outputs' directions.
            out_Mhw: is written.
        """
        assert keys.rho_P1S is not None, "a transformer has at least one layer"
        rho_S = keys.rho_P1S[prompt, 0]
        weight_S = rho_S if keys.alpha_P1S is None else rho_S * keys.alpha_P1S[prompt, 0]
        mapped_AK = self._first_AC @ keys.factors_PKC[prompt].T
        _head(
            image,
            self._weights,
            array(weight_S),
            array(rho_S),
            array(keys.filled_PKS[prompt]),
            array(mapped_AK),
            array(hyper_MG),
            out_Mhw.numpy(),
        )


def warm_up() -> None:
    """Has the kernels of this file ready, where they serve: loads or compiles them."""
    if not available():
        return

    def some(*shape: int) -> Floats:
        """Zeros."""
        return np.zeros(shape, np.float32)

    weights = _Weights(some(8), some(2), some(2), 1e-6, some(4, 2), some(1))
    image = FusedImage(some(1, 8, 4), some(0, 8, 4), some(0, 8, 4))
    _head(image, weights, some(4), some(4), some(3, 4), some(8, 3), some(1, 1), some(1, 8, 8))


def _by_position(weight: Tensor) -> Tensor:
    """A transposed convolution's weight [in, out, 2, 2] as one map [4 out, in], positions outermost."""
    assert weight.shape[2:] == (2, 2), "a kernel of 2 with stride 2"
    return weight.detach().permute(2, 3, 1, 0).reshape(-1, weight.shape[0]).contiguous()


@arithmetic_kernel
def _head(
    image: FusedImage,
    weights: _Weights,
    weight_S: Floats,
    rho_S: Floats,
    rows_KS: Floats,
    mapped_AK: Floats,
    hyper_MG: Floats,
    out_Mhw: Floats,
) -> None:
    """(1) to (4), block by block."""
    num_tokens, width, block = len(rho_S), out_Mhw.shape[2] // 4, image.first_LAN.shape[2]
    channels, fine_channels = len(weights.norm_weight_E), len(weights.second_bias_G)
    first_EN = np.empty((channels, block), np.float32)
    fine_GN = np.empty((2 * fine_channels, block), np.float32)
    logits_MN = np.empty((len(hyper_MG), block), np.float32)
    for start in range(0, num_tokens, block):
        stop = min(start + block, num_tokens)
        for position in range(4):
            first, after = position * channels, (position + 1) * channels
            _product(mapped_AK[first:after], rows_KS, start, stop, first_EN)
            _add_image(image, weights, first, start, stop, rho_S, weight_S, first_EN)
            _normalise(weights, stop - start, first_EN)

            # Two positions at once: OpenBLAS has kernels of their own for products below a million
            for row in range(2):
                second = weights.second_DE[2 * row * fine_channels : 2 * (row + 1) * fine_channels]
                _product(second, first_EN, 0, stop - start, fine_GN)
                for column in range(2):
                    fine = fine_GN[column * fine_channels : (column + 1) * fine_channels]
                    place = (4 * position + 2 * row + column) * fine_channels
                    _activate(image, weights, place, start, stop, fine)
                    _mix(hyper_MG, fine, stop - start, logits_MN)
                    y, x = position // 2 * 2 + row, position % 2 * 2 + column
                    _write(logits_MN, start, stop, width, y, x, out_Mhw)


@arithmetic_kernel
def _product(left_IK: Floats, right_KJ: Floats, start: int, stop: int, out_IN: Floats) -> None:
    """The product with columns start to stop of `right_KJ`, into the first columns of `out_IN`."""
    letter = np.array([78], np.uint8)  # N: not transposed; rows here are BLAS's columns, so sides change
    sizes = np.array([stop - start, left_IK.shape[0], left_IK.shape[1]], np.int32)
    strides = np.array([right_KJ.shape[1], left_IK.shape[1], out_IN.shape[1]], np.int32)
    factors = np.array([1.0, 0.0], np.float32)
    sgemm(
        letter.ctypes,
        letter.ctypes,
        sizes.ctypes,
        sizes[1:].ctypes,
        sizes[2:].ctypes,
        factors.ctypes,
        right_KJ[0, start:].ctypes,
        strides.ctypes,
        left_IK.ctypes,
        strides[1:].ctypes,
        factors[1:].ctypes,
        out_IN.ctypes,
        strides[2:].ctypes,
    )


@arithmetic_kernel
def _add_image(
    image: FusedImage,
    weights: _Weights,
    first: int,
    start: int,
    stop: int,
    rho_S: Floats,
    weight_S: Floats,
    first_EN: Floats,
) -> None:
    """(1) after its product: rho, the image's part, the bias, the family's map."""
    block = start // image.first_LAN.shape[2]
    rho_N, weight_N = rho_S[start:stop], weight_S[start:stop]
    for channel in range(len(first_EN)):
        row, bias = first + channel, weights.bias_A[first + channel]
        own_N, shared_N = first_EN[channel], image.first_LAN[block, row]
        for n in range(len(rho_N)):
            own_N[n] = own_N[n] * rho_N[n] + (shared_N[n] * weight_N[n] + bias)
        if len(image.middle_LAN):
            middle_N = image.middle_LAN[block, row]
            for n in range(len(rho_N)):
                own_N[n] += middle_N[n]


@arithmetic_kernel
def _normalise(weights: _Weights, num_pixels: int, first_EN: Floats) -> None:
    """(2), in place."""
    share = _ONE / np.float32(len(first_EN))
    mean_N = np.zeros(num_pixels, np.float32)
    scale_N = np.zeros(num_pixels, np.float32)
    for channel in range(len(first_EN)):
        for n in range(num_pixels):
            mean_N[n] += first_EN[channel, n] * share
    for channel in range(len(first_EN)):
        for n in range(num_pixels):
            centred = first_EN[channel, n] - mean_N[n]
            scale_N[n] += centred * centred
    for n in range(num_pixels):
        scale_N[n] = _ONE / np.sqrt(scale_N[n] * share + np.float32(weights.eps))
    for channel in range(len(first_EN)):
        weight, bias = weights.norm_weight_E[channel], weights.norm_bias_E[channel]
        for n in range(num_pixels):
            normal = (first_EN[channel, n] - mean_N[n]) * scale_N[n]
            first_EN[channel, n] = _gelu(normal * weight + bias)


@arithmetic_kernel
def _activate(
    image: FusedImage, weights: _Weights, place: int, start: int, stop: int, fine_GN: Floats
) -> None:
    """(3) after its product, in place."""
    for channel in range(len(fine_GN)):
        if len(image.fine_LBN):
            block, row = start // image.fine_LBN.shape[2], place + channel
            for n in range(stop - start):
                fine_GN[channel, n] = _gelu(fine_GN[channel, n] + image.fine_LBN[block, row, n])
        else:
            bias = weights.second_bias_G[channel]
            for n in range(stop - start):
                fine_GN[channel, n] = _gelu(fine_GN[channel, n] + bias)


@arithmetic_kernel
def _mix(hyper_MG: Floats, fine_GN: Floats, num_pixels: int, logits_MN: Floats) -> None:
    """(4)'s product: too few rows for BLAS."""
    logits_MN[:] = 0
    for output in range(len(hyper_MG)):
        for channel in range(len(fine_GN)):
            share = hyper_MG[output, channel]
            for n in range(num_pixels):
                logits_MN[output, n] += share * fine_GN[channel, n]


@arithmetic_kernel
def _write(logits_MN: Floats, start: int, stop: int, width: int, y: int, x: int, out_Mhw: Floats) -> None:
    """(4)'s places: pixel (y, x) of the 4 x 4 under each token."""
    for output in range(len(logits_MN)):
        token_y, token_x = start // width, start % width
        for n in range(stop - start):
            out_Mhw[output, 4 * token_y + y, 4 * token_x + x] = logits_MN[output, n]
            token_x += 1
            if token_x == width:
                token_y, token_x = token_y + 1, 0


@arithmetic_kernel
def _gelu(x: np.float32) -> np.float32:
    """x (1 + erf(x / root 2)) / 2."""
    z = x * _ROOT_HALF
    z = -_FOUR if z < -_FOUR else z
    z = _FOUR if z > _FOUR else z
    s = z * z
    above = (((((_P[0] * s + _P[1]) * s + _P[2]) * s + _P[3]) * s + _P[4]) * s + _P[5]) * s + _P[6]
    below = (((_Q[0] * s + _Q[1]) * s + _Q[2]) * s + _Q[3]) * s + _Q[4]
    half = _HALF * x
    return half + half * (above * z / below)
