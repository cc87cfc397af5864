"""The compiled loops of attention.py: blocks of image tokens through all steps of an attention.

All prompts of a chunk are one call, without the GIL. The numbers (1) to (4) are lowrank.py's. `mix`: scores
of a block, their exponentials against the largest so far, what they weigh; a larger one scales down what has
been summed before. `grow`: scores, their softmax over the tokens, new rows of Z, the sums of (3).

A slice comes before each loop: numba cannot prove a sum of indices not negative, and leaves out vectors.
What it does not know: torch, and which inputs it serves.

Shapes: as in attention.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.decoder.fused.blocks import Floats
from maskmill.pipeline.machine.blas import sgemm
from maskmill.pipeline.machine.compiled import arithmetic_kernel

# exp(x) = 2^k exp(r), r at most half of log 2: Taylor's polynomial, within 2e-7; k: adding _ROUND rounds
_LOG2_E, _LN2_HIGH, _LN2_LOW = (np.float32(value) for value in (1.44269504, 0.693359375, -2.12194440e-4))
_ROUND = np.float32(1.5 * 2**23 + 127)
_LEAST = np.float32(-87)
_TAYLOR = tuple(np.float32(1 / value) for value in (720, 120, 24, 6, 2))
_ZERO, _ONE, _LOWEST = (np.float32(value) for value in (0, 1, -3e38))


class BlockedImage(NamedTuple):
    """What prompts share of an image at a stage, by block; the last stage has keys and values alone.

    Attributes:
        key_LAN, query_LAN: the projections.
        value_LHND: the values, a token's channels together.
        carried_JLAN, constants_JS: for each layer so far, see `SharedStage`.
    """

    key_LAN: Floats
    value_LHND: Floats
    query_LAN: Floats
    carried_JLAN: Floats
    constants_JS: Floats


class BlockedPrompts(NamedTuple):
    """A chunk of prompts on an image.

    Attributes:
        tokens_PRD: the tokens' side of the scores.
        folded_PRK: (2)'s B W with it; no rows before the first layer's step.
        rows_PKS: room for Z, with as many rows filled.
        rho_PS, alpha_PS: as in (1); nothing before the first layer's step.
    """

    tokens_PRD: Floats
    folded_PRK: Floats
    rows_PKS: Floats
    rho_PS: Floats
    alpha_PS: Floats


class _Room(NamedTuple):
    """What a block needs beside its input, and what BLAS reads its arguments from."""

    letters: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int32]
    factors: Floats
    rows_KN: Floats
    joined_DN: Floats
    scores_RN: Floats
    products_KN: Floats


@arithmetic_kernel
def mix(
    image: BlockedImage, position_LAN: Floats, prompts: BlockedPrompts, mixed_PRD: Floats, sums_PRK: Floats
) -> None:
    """Attention over image tokens: (4)'s sums into the last two."""
    block, num_old = image.key_LAN.shape[2], prompts.folded_PRK.shape[2]
    room = _room(prompts, num_old, block)
    top_R = np.empty(len(room.scores_RN), np.float32)
    total_RN = np.empty(room.scores_RN.shape, np.float32)
    for p in range(len(mixed_PRD)):
        mixed_RD, sums_RK = mixed_PRD[p], sums_PRK[p]
        mixed_RD[:], sums_RK[:], total_RN[:], top_R[:] = _ZERO, _ZERO, _ZERO, _LOWEST
        for b in range(len(image.key_LAN)):
            start, stop = b * block, min((b + 1) * block, prompts.rows_PKS.shape[2])
            _score(room, image.key_LAN[b], position_LAN, prompts, p, b, start, stop)
            _exponentiate(room, stop - start, top_R, total_RN, mixed_RD, sums_RK)
            if num_old:
                _multiply(room.scores_RN, prompts.rho_PS[p, start:stop])
                sizes, strides = (num_old, len(sums_RK), stop - start), (block, block, num_old)
                _product(room, 1, sizes, strides, 1, room.rows_KN, room.scores_RN, sums_RK)
                _multiply(room.scores_RN, prompts.alpha_PS[p, start:stop])
            _add_values(room, image.value_LHND[b], stop - start, mixed_RD)

        for r in range(len(top_R)):
            scale = _ONE / total_RN[r].sum()
            _scale(mixed_RD[r], scale)
            _scale(sums_RK[r], scale)


@arithmetic_kernel
def grow(
    image: BlockedImage,
    position_LAN: Floats,
    prompts: BlockedPrompts,
    values_JPRD: Floats,
    gram_PKK: Floats,
    lengths_PK: Floats,
    cross_PS: Floats,
    own_PS: Floats,
    reach_PS: Floats,
) -> None:
    """Attention over tokens: new rows behind the filled ones, (3)'s sums added to the last three."""
    block, num_rows, num_old = image.query_LAN.shape[2], gram_PKK.shape[1], prompts.folded_PRK.shape[2]
    heads, size = image.value_LHND.shape[1], num_rows - num_old
    room = _room(prompts, num_rows, block)
    for p in range(len(gram_PKK)):
        for b in range(len(image.query_LAN)):
            start, stop = b * block, min((b + 1) * block, prompts.rows_PKS.shape[2])
            _score(room, image.query_LAN[b], position_LAN, prompts, p, b, start, stop)
            if num_old:
                _multiply(room.rows_KN[:num_old], prompts.rho_PS[p, start:stop])
            _softmax_over_tokens(room.scores_RN, heads)
            _set_new_rows(room.scores_RN, heads, room.rows_KN[num_old:])
            _store(room.rows_KN, start, stop, prompts.rows_PKS[p])

            cross_N, own_N, reach_N = cross_PS[p, start:stop], own_PS[p, start:stop], reach_PS[p, start:stop]
            for layer in range(len(values_JPRD)):
                carried_AN, constant_N = image.carried_JLAN[layer, b], image.constants_JS[layer, start:stop]
                _add_cross(room, carried_AN, constant_N, values_JPRD[layer, p], layer * size, heads, cross_N)
                _add_squares(room, gram_PKK[p], layer * size, (layer + 1) * size, own_N)
            for k in range(num_rows):
                length, row_N = lengths_PK[p, k], room.rows_KN[k]
                for n in range(len(reach_N)):
                    reach_N[n] += length * row_N[n]


@arithmetic_kernel
def _room(prompts: BlockedPrompts, num_rows: int, block: int) -> _Room:
    """Letters: not transposed, transposed. Factors: 1, then 0 and 1."""
    num_scores, width = prompts.tokens_PRD.shape[1:]
    return _Room(
        np.array([78, 84], np.uint8),
        np.zeros(6, np.int32),
        np.array([1.0, 0.0, 1.0], np.float32),
        np.zeros((num_rows, block), np.float32),
        np.zeros((width, block), np.float32),
        np.zeros((num_scores, block), np.float32),
        np.zeros((max(num_rows, num_scores), block), np.float32),
    )


@arithmetic_kernel
def _score(
    room: _Room,
    image_AN: Floats,
    position_LAN: Floats,
    prompts: BlockedPrompts,
    p: int,
    b: int,
    start: int,
    stop: int,
) -> None:
    """(2) of a prompt's block, into the room; the filled rows of Z too."""
    tokens_RD, folded_RK, scores_RN = prompts.tokens_PRD[p], prompts.folded_PRK[p], room.scores_RN
    num_old, inside, (width, block) = folded_RK.shape[1], stop - start, room.joined_DN.shape
    if num_old == 0:
        _products(room, image_AN, tokens_RD, inside, scores_RN)
        return

    # rho Z (B W)
    rho_N, alpha_N = prompts.rho_PS[p, start:stop], prompts.alpha_PS[p, start:stop]
    rows_KN, joined_DN, position_AN = room.rows_KN[:num_old], room.joined_DN, position_LAN[b]
    _load(prompts.rows_PKS[p], start, stop, rows_KN)
    sizes, strides = (inside, len(folded_RK), num_old), (block, num_old, block)
    _product(room, 0, sizes, strides, 0, rows_KN, folded_RK, scores_RN)
    _multiply(scores_RN, rho_N)

    # rho alpha X W and the positions, joined before their product: one where (2) has two
    heads = len(image_AN) // width
    tokens = len(tokens_RD) // heads
    for h in range(heads):
        for d in range(width):
            own_N, place_N, out_N = image_AN[h * width + d], position_AN[h * width + d], joined_DN[d]
            for n in range(inside):
                out_N[n] = own_N[n] * (rho_N[n] * alpha_N[n]) + place_N[n]
        head_TD, head_TN = tokens_RD[h * tokens :], scores_RN[h * tokens :]
        _product(room, 0, (inside, tokens, width), (block, width, block), 1, joined_DN, head_TD, head_TN)


@arithmetic_kernel
def _products(room: _Room, image_AN: Floats, tokens_RD: Floats, inside: int, out_RN: Floats) -> None:
    """Each head's tokens with its channels of the image."""
    width, block = room.joined_DN.shape
    heads = len(image_AN) // width
    tokens = len(tokens_RD) // heads
    for h in range(heads):
        head_DN, head_TD, head_TN = image_AN[h * width :], tokens_RD[h * tokens :], out_RN[h * tokens :]
        _product(room, 0, (inside, tokens, width), (block, width, block), 0, head_DN, head_TD, head_TN)


@arithmetic_kernel
def _add_values(room: _Room, value_HND: Floats, inside: int, mixed_RD: Floats) -> None:
    """(4)'s share rho alpha X of a block, behind the values' projection."""
    heads, block, width = value_HND.shape
    tokens = len(mixed_RD) // heads
    for h in range(heads):
        share_TN, mixed_TD = room.scores_RN[h * tokens :], mixed_RD[h * tokens :]
        sizes, strides = (width, tokens, inside), (width, block, width)
        _product(room, 0, sizes, strides, 1, value_HND[h], share_TN, mixed_TD)


@arithmetic_kernel
def _exponentiate(
    room: _Room, inside: int, top_R: Floats, total_RN: Floats, mixed_RD: Floats, sums_RK: Floats
) -> None:
    """A block's shares before their division by the total; what was summed before follows a larger score."""
    half_N = room.products_KN[0]
    for r in range(len(top_R)):
        scores_N, total_N = room.scores_RN[r], total_RN[r]
        scores_N[inside:] = _LOWEST
        top = _largest(scores_N, half_N)
        if top > top_R[r]:
            scale = np.float32(np.exp(top_R[r] - top))
            top_R[r] = top
            _scale(mixed_RD[r], scale)
            _scale(sums_RK[r], scale)
            _scale(total_N, scale)
        top = top_R[r]
        for n in range(len(scores_N)):
            share = _exponential(scores_N[n] - top)
            scores_N[n] = share
            total_N[n] += share


@arithmetic_kernel
def _softmax_over_tokens(scores_RN: Floats, heads: int) -> None:
    """In place, head by head."""
    tokens, block = len(scores_RN) // heads, scores_RN.shape[1]
    top_N = np.empty(block, np.float32)
    total_N = np.empty(block, np.float32)
    for h in range(heads):
        scores_TN = scores_RN[h * tokens : (h + 1) * tokens]
        top_N[:] = scores_TN[0]
        for t in range(1, tokens):
            scores_N = scores_TN[t]
            for n in range(block):
                top_N[n] = scores_N[n] if scores_N[n] > top_N[n] else top_N[n]
        total_N[:] = _ZERO
        for t in range(tokens):
            scores_N = scores_TN[t]
            for n in range(block):
                share = _exponential(scores_N[n] - top_N[n])
                scores_N[n] = share
                total_N[n] += share
        for n in range(block):
            total_N[n] = _ONE / total_N[n]
        _multiply(scores_TN, total_N)


@arithmetic_kernel
def _set_new_rows(shares_RN: Floats, heads: int, new_KN: Floats) -> None:
    """The shares of all but each head's last token, and a row of ones."""
    tokens = len(shares_RN) // heads
    for h in range(heads):
        for t in range(tokens - 1):
            new_KN[h * (tokens - 1) + t, :] = shares_RN[h * tokens + t]
    new_KN[len(new_KN) - 1, :] = _ONE


@arithmetic_kernel
def _add_cross(
    room: _Room,
    carried_AN: Floats,
    constant_N: Floats,
    value_RD: Floats,
    first: int,
    heads: int,
    cross_N: Floats,
) -> None:
    """(3)'s X . Z B of a layer: each value's product with X, times its row; last tokens' is of ones."""
    _products(room, carried_AN, value_RD, len(cross_N), room.products_KN)
    tokens = len(value_RD) // heads
    rows_KN, ones_N = room.rows_KN[first:], room.rows_KN[first + heads * (tokens - 1)]
    for h in range(heads):
        for t in range(tokens):
            product_N = room.products_KN[h * tokens + t]
            row_N = ones_N if t == tokens - 1 else rows_KN[h * (tokens - 1) + t]
            for n in range(len(cross_N)):
                cross_N[n] += product_N[n] * row_N[n]
    for n in range(len(cross_N)):
        cross_N[n] += constant_N[n] * ones_N[n]


@arithmetic_kernel
def _add_squares(room: _Room, gram_KK: Floats, first: int, after: int, own_N: Floats) -> None:
    """(3)'s |Z B|^2: a layer's rows with themselves and those before."""
    num_rows, block = room.rows_KN.shape
    sizes, strides = (len(own_N), after - first, after), (block, num_rows, block)
    _product(room, 0, sizes, strides, 0, room.rows_KN, gram_KK[first:after], room.products_KN)
    for k in range(after - first):
        product_N, row_N = room.products_KN[k], room.rows_KN[first + k]
        for n in range(len(own_N)):
            own_N[n] += product_N[n] * row_N[n]


@arithmetic_kernel
def _product(
    room: _Room,
    transposed: int,
    sizes: tuple[int, int, int],
    strides: tuple[int, int, int],
    add: int,
    right: Floats,
    left: Floats,
    out: Floats,
) -> None:
    """out = left right, with `add` out += left right; BLAS's columns are rows here, so sides change.

    `sizes`: columns of `out`, its rows, the inner size. `transposed`: `right` is.
    """
    own = room.sizes
    for i in range(3):
        own[i], own[3 + i] = sizes[i], strides[i]
    letter, other, factors = room.letters[transposed:].ctypes, room.letters.ctypes, room.factors
    columns, rows, inner = own.ctypes, own[1:].ctypes, own[2:].ctypes
    a, b, c = own[3:].ctypes, own[4:].ctypes, own[5:].ctypes
    one, kept = factors.ctypes, factors[1 + add :].ctypes
    sgemm(letter, other, columns, rows, inner, one, right.ctypes, a, left.ctypes, b, kept, out.ctypes, c)


@arithmetic_kernel
def _load(rows_KS: Floats, start: int, stop: int, block_KN: Floats) -> None:
    """A block of the first rows."""
    for k in range(len(block_KN)):
        row_N, block_N = rows_KS[k, start:stop], block_KN[k]
        for n in range(len(row_N)):
            block_N[n] = row_N[n]


@arithmetic_kernel
def _store(block_KN: Floats, start: int, stop: int, rows_KS: Floats) -> None:
    """The other way."""
    for k in range(len(block_KN)):
        row_N, block_N = rows_KS[k, start:stop], block_KN[k]
        for n in range(len(row_N)):
            row_N[n] = block_N[n]


@arithmetic_kernel
def _multiply(values_RN: Floats, factors_N: Floats) -> None:
    """Each row, in place."""
    for r in range(len(values_RN)):
        values_N = values_RN[r]
        for n in range(len(factors_N)):
            values_N[n] *= factors_N[n]


@arithmetic_kernel
def _scale(values_N: Floats, factor: np.float32) -> None:
    """In place."""
    for n in range(len(values_N)):
        values_N[n] *= factor


@arithmetic_kernel
def _largest(values_N: Floats, half_N: Floats) -> np.float32:
    """Of a power of two of numbers, the halves against each other: loops that the machine's vectors do."""
    size = len(values_N) // 2
    other_N = values_N[size:]
    for n in range(size):
        half_N[n] = values_N[n] if values_N[n] > other_N[n] else other_N[n]
    while size > 16:
        size //= 2
        rest_N = half_N[size:]
        for n in range(size):
            half_N[n] = half_N[n] if half_N[n] > rest_N[n] else rest_N[n]
    top: np.float32 = half_N[0]
    for n in range(1, size):
        top = half_N[n] if half_N[n] > top else top
    return top


@arithmetic_kernel
def _exponential(x: np.float32) -> np.float32:
    """exp of a number that is not above zero; below -87 as there. What isn't a number stays so."""
    x = _LEAST if x < _LEAST else x
    shifted = x * _LOG2_E + _ROUND
    k = shifted - _ROUND
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    power = ((((_TAYLOR[0] * r + _TAYLOR[1]) * r + _TAYLOR[2]) * r + _TAYLOR[3]) * r + _TAYLOR[4]) * r
    power = (power + _ONE) * r + _ONE
    scale = np.int32(np.float32(shifted).view(np.int32) << np.int32(23)).view(np.float32)
    return power * scale
