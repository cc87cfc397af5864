"""The compiled loops of head.py: blocks of pixels through all steps of the mask head.

One prompt is one call, without the GIL: BLAS products, and loops along pixels over what they gave while that
is in cache. The numbers (1) to (5) are head.py's.

What it does not know: torch, and which decoders it serves.

Shapes: as in head.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from maskmill.pipeline.decoder.fused.blocks import BLOCK, Floats
from maskmill.pipeline.machine.blas import sgemm
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


class Norm(NamedTuple):
    """Of a pixel's channels: float32[E] each."""

    weight_E: Floats
    bias_E: Floats
    eps: float


class HeadWeights(NamedTuple):
    """Of the head, float32."""

    bias_A: Floats
    norm: Norm
    second_DE: Floats
    second_bias_G: Floats


class FurtherWeights(NamedTuple):
    """Of SAM-HQ's further mask, float32.

    Attributes:
        first_3EK: its first convolution, by column of the kernel; K are the kernel's rows, then channels.
        bias_E, norm: after it.
    """

    first_3EK: Floats
    bias_E: Floats
    norm: Norm


@arithmetic_kernel
def head(
    image: FusedImage,
    weights: HeadWeights,
    weight_S: Floats,
    rho_S: Floats,
    rows_KS: Floats,
    mapped_AK: Floats,
    hyper_MG: Floats,
    out_Mhw: Floats,
    finest_YGX: Floats,
) -> None:
    """(1) to (4), block by block; what (3) gives is kept in the last, if that isn't empty."""
    num_tokens, width, block = len(rho_S), out_Mhw.shape[2] // 4, image.first_LAN.shape[2]
    channels, fine_channels = len(weights.norm.weight_E), len(weights.second_bias_G)
    first_EN = np.empty((channels, block), np.float32)
    fine_GN = np.empty((2 * fine_channels, block), np.float32)
    logits_MN = np.empty((len(hyper_MG), block), np.float32)
    inner_GYX = finest_YGX[1:-1, :, 1:-1].transpose(1, 0, 2)  # within the border
    for start in range(0, num_tokens, block):
        stop = min(start + block, num_tokens)
        for position in range(4):
            first, after = position * channels, (position + 1) * channels
            _product(mapped_AK[first:after], rows_KS, start, stop, 0.0, first_EN)
            _add_image(image, weights, first, start, stop, rho_S, weight_S, first_EN)
            _normalise(weights.norm, stop - start, first_EN)

            # Two positions at once: OpenBLAS has kernels of their own for products below a million
            for row in range(2):
                second = weights.second_DE[2 * row * fine_channels : 2 * (row + 1) * fine_channels]
                _product(second, first_EN, 0, stop - start, 0.0, fine_GN)
                for column in range(2):
                    fine = fine_GN[column * fine_channels : (column + 1) * fine_channels]
                    place = (4 * position + 2 * row + column) * fine_channels
                    _activate(image, weights, place, start, stop, fine)
                    _mix(hyper_MG, fine, stop - start, logits_MN)
                    y, x = position // 2 * 2 + row, position % 2 * 2 + column
                    if len(finest_YGX):
                        _write(fine, start, stop, width, y, x, inner_GYX)
                    _write(logits_MN, start, stop, width, y, x, out_Mhw)


@arithmetic_kernel
def _product(left_IK: Floats, right_KJ: Floats, start: int, stop: int, kept: float, out_IN: Floats) -> None:
    """The product with columns start to stop of `right_KJ`, added to `kept` times `out_IN`."""
    letter = np.array([78], np.uint8)  # N: not transposed; rows here are BLAS's columns, so sides change
    sizes = np.array([stop - start, left_IK.shape[0], left_IK.shape[1]], np.int32)
    strides = np.array([right_KJ.shape[1], left_IK.shape[1], out_IN.shape[1]], np.int32)
    factors = np.array([1.0, kept], np.float32)
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
    weights: HeadWeights,
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
def _normalise(norm: Norm, num_pixels: int, first_EN: Floats) -> None:
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
        scale_N[n] = _ONE / np.sqrt(scale_N[n] * share + np.float32(norm.eps))
    for channel in range(len(first_EN)):
        weight, bias = norm.weight_E[channel], norm.bias_E[channel]
        for n in range(num_pixels):
            normal = (first_EN[channel, n] - mean_N[n]) * scale_N[n]
            first_EN[channel, n] = _gelu(normal * weight + bias)


@arithmetic_kernel
def _activate(
    image: FusedImage, weights: HeadWeights, place: int, start: int, stop: int, fine_GN: Floats
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
def _write(values_CN: Floats, start: int, stop: int, width: int, y: int, x: int, out_CYX: Floats) -> None:
    """A block's logits, or finest channels, at their places: pixel (y, x) of the 4 x 4 under each token."""
    for channel in range(len(values_CN)):
        token_y, token_x = start // width, start % width
        for n in range(stop - start):
            out_CYX[channel, 4 * token_y + y, 4 * token_x + x] = values_CN[channel, n]
            token_x += 1
            if token_x == width:
                token_y, token_x = token_y + 1, 0


@arithmetic_kernel
def further(finest_YGX: Floats, weights: FurtherWeights, kernel_9E: Floats, mask_YX: Floats) -> None:
    """(5)'s convolutions, a part of a row after the other, added to `mask_YX`.

    Three rows of the finest channels lie one after the other, so a column of the kernel is one product.
    """
    height, width = finest_YGX.shape[0] - 2, finest_YGX.shape[2] - 2
    between_EN = np.empty((len(weights.bias_E), BLOCK), np.float32)
    sums_9N = np.empty((len(kernel_9E), BLOCK), np.float32)
    for y in range(height):
        rows_KX = finest_YGX[y : y + 3].reshape(-1, width + 2)
        for start in range(0, width, BLOCK):
            num_pixels = min(BLOCK, width - start)
            for channel in range(len(between_EN)):
                between_EN[channel] = weights.bias_E[channel]
            for x in range(3):
                _product(weights.first_3EK[x], rows_KX, start + x, start + x + num_pixels, 1.0, between_EN)
            _normalise(weights.norm, num_pixels, between_EN)
            _mix(kernel_9E, between_EN, num_pixels, sums_9N)
            for neighbour in range(9):
                first = start + 2 - neighbour % 3
                sums_N = sums_9N[neighbour]
                mask_N = mask_YX[y + 2 - neighbour // 3, first : first + num_pixels]
                for n in range(num_pixels):
                    mask_N[n] += sums_N[n]


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
