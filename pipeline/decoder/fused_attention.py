"""The low-rank decoder's arithmetic at image tokens on a CPU, block by block: `Work` in float32.

lowrank_steps.py does the same operation by operation, each reading and writing all image tokens of all
prompts; here a block of image tokens that stays in cache goes through all steps of an attention before the
next begins. A call is all prompts of a chunk, without the GIL. The numbers (1) to (4) are lowrank.py's:

* `_mix`: scores (2) of a block, their exponentials against the largest so far, and what they weigh (4); a
  larger one scales down what has been summed before it.
* `_grow`: scores (2), their softmax over the tokens, the new rows of Z, and the sums of (3).

Projection and position at an image token are joined before their product with the tokens, rho alpha X W +
position: one product where (2) has two.

What it does not do: narrower formats, other devices, machines without scipy, whose products it calls.

Shapes: as in lowrank.py, and A = H D, L blocks of N image tokens, the last one filled up, J layers so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from maskmill.pipeline.decoder.lowrank import Growth, ImageKeys
from maskmill.pipeline.decoder.lowrank_image import SharedImage, Stage
from maskmill.pipeline.machine.blas import available, sgemm
from maskmill.pipeline.machine.compiled import arithmetic_kernel

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]

_BLOCK = 128
"""Image tokens of a block: with Z's rows and the scores some 100 KiB, which stay in a core's second cache."""

_LANES = 16
"""Numbers that a sum or a largest one keeps side by side; a block is a multiple."""

# exp(x) = 2^k exp(r), r below half of log 2: Taylor's polynomial, 2e-7 of it; k by adding what leaves no fraction
_LOG2_E, _LN2_HIGH, _LN2_LOW = (np.float32(value) for value in (1.44269504, 0.693359375, -2.12194440e-4))
_ROUND = np.float32(1.5 * 2**23 + 127)
_LEAST = np.float32(-87)
_TAYLOR = tuple(np.float32(1 / value) for value in (720, 120, 24, 6, 2))
_ZERO, _ONE, _LOWEST = (np.float32(value) for value in (0, 1, -3e38))


class BlockedPositions(NamedTuple):
    """Of a stage, by block: the image tokens' positions behind the projections to keys and to queries."""

    key_LAN: Floats
    query_LAN: Floats


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


class _Desk(NamedTuple):
    """What BLAS reads its arguments from."""

    letters: Bytes
    sizes: Integers
    factors: Floats


def serves(like: Tensor) -> bool:
    """Whether image tokens such as these can go block by block here."""
    return like.device.type == "cpu" and like.dtype == torch.float32 and available()


def blocked_positions(stages: Sequence[Stage]) -> tuple[BlockedPositions, ...]:
    """Once a model."""
    return tuple(
        BlockedPositions(
            _in_blocks(stage.key_position_HDS.flatten(0, 1)),
            _in_blocks((stage.step.query_position_HDS if stage.step else stage.key_position_HDS).flatten(0, 1)),
        )
        for stage in stages
    )


def blocked_image(shared: SharedImage) -> tuple[BlockedImage, ...]:
    """Once an image."""
    found = []
    for stage in shared.stages:
        key_LAN = _in_blocks(stage.key_HDS.flatten(0, 1))
        heads, width, num_tokens = stage.value_HDS.shape
        value_HDS = nn.functional.pad(stage.value_HDS, (0, len(key_LAN) * _BLOCK - num_tokens))
        value_LHND = value_HDS.view(heads, width, -1, _BLOCK).permute(2, 0, 3, 1)
        query_LAN, carried_JLAN, constants_JS = key_LAN[:0], key_LAN[None, :0], np.zeros((0, 0), np.float32)
        if stage.query_HDS is not None:
            query_LAN = _in_blocks(stage.query_HDS.flatten(0, 1))
            carried_JLAN = np.stack([_in_blocks(carried.flatten(0, 1)) for carried in stage.carried_HDS])
            constants_JS = _array(torch.stack(stage.constants_S))
        found.append(BlockedImage(key_LAN, _array(value_LHND), query_LAN, carried_JLAN, constants_JS))
    return tuple(found)


class InBlocks:
    """`Work` on one image, block by block.

    Args:
        shared: of the image.
        positions: of `blocked_positions`.
        image: of `blocked_image`.
    """

    def __init__(
        self, shared: SharedImage, positions: Sequence[BlockedPositions], image: Sequence[BlockedImage]
    ) -> None:
        self._shared, self._positions, self._image = shared, positions, image

    def rows(self, prompts: int, num_rows: int) -> Tensor:
        """See `Work`."""
        return self._shared.like.new_empty(prompts, num_rows, self._shared.last_CS.shape[1])

    def mix(
        self, keys: ImageKeys, number: int, query_PHTD: Tensor, folded_PRK: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Work`."""
        prompts, heads, tokens, width = query_PHTD.shape
        mixed_PHTD = torch.empty_like(query_PHTD, memory_format=torch.contiguous_format)
        sums_PRK = query_PHTD.new_empty(prompts, heads * tokens, keys.num_rows)
        rho_PS, alpha_PS = _scales(keys)
        _mix(
            self._image[number],
            self._positions[number].key_LAN,
            _array(query_PHTD.flatten(1, 2)),
            _folded(folded_PRK, sums_PRK),
            keys.rows_PKS.numpy(),
            rho_PS,
            alpha_PS,
            mixed_PHTD.view(prompts, heads * tokens, width).numpy(),
            sums_PRK.numpy(),
        )
        return mixed_PHTD, None if folded_PRK is None else sums_PRK

    def grow(
        self,
        keys: ImageKeys,
        number: int,
        key_PHTD: Tensor,
        folded_PRK: Tensor | None,
        factors_PKC: Tensor,
    ) -> Growth:
        """See `Work`."""
        length_S = self._shared.stages[number].length_S
        assert length_S is not None, "the last stage has no norm"
        prompts, heads, tokens, _ = key_PHTD.shape
        num_layers = len(keys.values_PHTD)

        # Products of rows of B: each pair of layers once
        gram_PKK = torch.bmm(factors_PKC, factors_PKC.transpose(1, 2))
        size = factors_PKC.shape[1] // num_layers
        for layer in range(1, num_layers):
            gram_PKK[:, layer * size : (layer + 1) * size, : layer * size] *= 2

        sums_P3S = factors_PKC.new_empty(prompts, 3, len(length_S))
        rho_PS, alpha_PS = _scales(keys)
        _grow(
            self._image[number],
            self._positions[number].query_LAN,
            heads,
            _array(key_PHTD.flatten(1, 2)),
            _folded(folded_PRK, key_PHTD.new_empty(prompts, heads * tokens, 0)),
            keys.rows_PKS.numpy(),
            rho_PS,
            alpha_PS,
            _array(torch.stack(keys.values_PHTD).flatten(2, 3)),
            _array(gram_PKK),
            _array(torch.linalg.vector_norm(factors_PKC, dim=-1)),
            sums_P3S.numpy(),
        )
        cross_P1S, own_P1S, reach_P1S = sums_P3S.split(1, dim=1)
        return Growth(length_S, cross_P1S, own_P1S, reach_P1S)


def _folded(folded_PRK: Tensor | None, none_PRK: Tensor) -> Floats:
    return _array(none_PRK if folded_PRK is None else folded_PRK)


def _scales(keys: ImageKeys) -> tuple[Floats, Floats]:
    """rho and alpha, float32[P, S]; without rows before the first layer's step."""
    if keys.rho_P1S is None:
        none_PS = np.zeros((0, 0), np.float32)
        return none_PS, none_PS
    alpha_P1S = torch.ones_like(keys.rho_P1S) if keys.alpha_P1S is None else keys.alpha_P1S
    return _array(keys.rho_P1S[:, 0]), _array(alpha_P1S[:, 0])


def _in_blocks(values_AS: Tensor) -> Floats:
    """float32[L, A, N], zeros behind the last token."""
    num_blocks = -(-values_AS.shape[1] // _BLOCK)
    padded_AS = nn.functional.pad(values_AS, (0, num_blocks * _BLOCK - values_AS.shape[1]))
    return _array(padded_AS.view(-1, num_blocks, _BLOCK).transpose(0, 1))


def _array(values: Tensor) -> Floats:
    array: Floats = values.detach().contiguous().numpy()
    return array


@arithmetic_kernel
def _mix(
    image: BlockedImage,
    position_LAN: Floats,
    query_PRD: Floats,
    folded_PRK: Floats,
    rows_PKS: Floats,
    rho_PS: Floats,
    alpha_PS: Floats,
    mixed_PRD: Floats,
    sums_PRK: Floats,
) -> None:
    """Attention over image tokens."""
    desk = _desk()
    num_scores, num_rows = query_PRD.shape[1], folded_PRK.shape[2]
    block, num_tokens = image.key_LAN.shape[2], rows_PKS.shape[2]
    rows_KN = np.zeros((num_rows, block), np.float32)
    joined_DN = np.empty((query_PRD.shape[2], block), np.float32)
    scores_RN = np.zeros((num_scores, block), np.float32)
    top_R = np.empty(num_scores, np.float32)
    total_RV = np.empty((num_scores, _LANES), np.float32)
    lanes_V = np.empty(_LANES, np.float32)
    for p in range(len(query_PRD)):
        query_RD, mixed_RD, sums_RK = query_PRD[p], mixed_PRD[p], sums_PRK[p]
        mixed_RD[:], sums_RK[:], total_RV[:], top_R[:] = _ZERO, _ZERO, _ZERO, _LOWEST
        for b in range(len(image.key_LAN)):
            start, stop = b * block, min((b + 1) * block, num_tokens)
            key_AN, value_HND = image.key_LAN[b], image.value_LHND[b]
            if num_rows == 0:
                _scores_of_image(desk, key_AN, query_RD, len(value_HND), stop - start, scores_RN)
                _exponentiate(stop - start, top_R, total_RV, mixed_RD, sums_RK, lanes_V, scores_RN)
            else:
                rho_N, alpha_N = rho_PS[p, start:stop], alpha_PS[p, start:stop]
                _load(rows_PKS[p], start, stop, rows_KN)
                _scores_of_rows(desk, folded_PRK[p], rows_KN, rho_N, scores_RN)
                position_AN = position_LAN[b]
                _add_scores(desk, key_AN, position_AN, query_RD, rho_N, alpha_N, joined_DN, scores_RN)
                _exponentiate(stop - start, top_R, total_RV, mixed_RD, sums_RK, lanes_V, scores_RN)
                _multiply(scores_RN, rho_N)
                _sum_rows(desk, rows_KN, scores_RN, stop - start, sums_RK)
                _multiply(scores_RN, alpha_N)
            _sum_values(desk, value_HND, scores_RN, stop - start, mixed_RD)

        for r in range(num_scores):
            scale = _ONE / total_RV[r].sum()
            _scale(mixed_RD[r], scale)
            _scale(sums_RK[r], scale)


@arithmetic_kernel
def _grow(
    image: BlockedImage,
    position_LAN: Floats,
    heads: int,
    key_PRD: Floats,
    folded_PRK: Floats,
    rows_PKS: Floats,
    rho_PS: Floats,
    alpha_PS: Floats,
    values_JPRD: Floats,
    gram_PKK: Floats,
    lengths_PK: Floats,
    sums_P3S: Floats,
) -> None:
    """Attention over tokens: new rows, and the sums of the norm."""
    desk = _desk()
    num_scores, num_old, num_rows = key_PRD.shape[1], folded_PRK.shape[2], gram_PKK.shape[1]
    block, num_tokens = image.query_LAN.shape[2], rows_PKS.shape[2]
    rows_KN = np.zeros((num_rows, block), np.float32)
    joined_DN = np.empty((key_PRD.shape[2], block), np.float32)
    scores_RN = np.zeros((num_scores, block), np.float32)
    products_KN = np.zeros((max(num_rows - num_old, num_scores), block), np.float32)
    for p in range(len(key_PRD)):
        for b in range(len(image.query_LAN)):
            start, stop = b * block, min((b + 1) * block, num_tokens)
            query_AN = image.query_LAN[b]
            if num_old == 0:
                _scores_of_image(desk, query_AN, key_PRD[p], heads, stop - start, scores_RN)
            else:
                rho_N, alpha_N = rho_PS[p, start:stop], alpha_PS[p, start:stop]
                old_KN, position_AN = rows_KN[:num_old], position_LAN[b]
                _load(rows_PKS[p], start, stop, old_KN)
                _scores_of_rows(desk, folded_PRK[p], old_KN, rho_N, scores_RN)
                _add_scores(desk, query_AN, position_AN, key_PRD[p], rho_N, alpha_N, joined_DN, scores_RN)
                _multiply(old_KN, rho_N)
            _softmax_over_tokens(scores_RN, heads)
            _set_new_rows(scores_RN, heads, rows_KN[num_old:])
            _store(rows_KN, start, stop, rows_PKS[p])

            cross_N, own_N, reach_N = (
                sums_P3S[p, 0, start:stop],
                sums_P3S[p, 1, start:stop],
                sums_P3S[p, 2, start:stop],
            )
            cross_N[:], own_N[:], reach_N[:] = _ZERO, _ZERO, _ZERO
            for layer in range(len(values_JPRD)):
                size = num_rows // len(values_JPRD)
                first, after = layer * size, (layer + 1) * size
                carried_AN, constant_N = image.carried_JLAN[layer, b], image.constants_JS[layer, start:stop]
                value_RD, own_KN = values_JPRD[layer, p], rows_KN[first:after]
                _add_cross(desk, carried_AN, constant_N, value_RD, own_KN, heads, products_KN, cross_N)
                _add_squares(desk, gram_PKK[p], first, after, rows_KN, products_KN, own_N)
            for k in range(num_rows):
                length, row_N = lengths_PK[p, k], rows_KN[k]
                for n in range(len(reach_N)):
                    reach_N[n] += length * row_N[n]


@arithmetic_kernel
def _scores_of_image(
    desk: _Desk, image_AN: Floats, tokens_RD: Floats, heads: int, inside: int, scores_RN: Floats
) -> None:
    """(2) before the first step: X W alone, the positions in it."""
    tokens, width, block = len(tokens_RD) // heads, tokens_RD.shape[1], scores_RN.shape[1]
    for h in range(heads):
        head_DN, head_TD = image_AN[h * width : (h + 1) * width], tokens_RD[h * tokens : (h + 1) * tokens]
        _product(
            desk, 0, (inside, tokens, width), (block, width, block), 0, head_DN, head_TD, scores_RN[h * tokens :]
        )


@arithmetic_kernel
def _scores_of_rows(
    desk: _Desk, folded_RK: Floats, rows_KN: Floats, rho_N: Floats, scores_RN: Floats
) -> None:
    """(2)'s rho Z (B W)."""
    num_rows, block = rows_KN.shape
    sizes = (len(rho_N), len(folded_RK), num_rows)
    _product(desk, 0, sizes, (block, num_rows, block), 0, rows_KN, folded_RK, scores_RN)
    _multiply(scores_RN, rho_N)


@arithmetic_kernel
def _add_scores(
    desk: _Desk,
    image_AN: Floats,
    position_AN: Floats,
    tokens_RD: Floats,
    rho_N: Floats,
    alpha_N: Floats,
    joined_DN: Floats,
    scores_RN: Floats,
) -> None:
    """(2)'s rest: rho alpha X W and the positions, joined."""
    width, block = joined_DN.shape
    heads = len(image_AN) // width
    tokens = len(tokens_RD) // heads
    for h in range(heads):
        for d in range(width):
            own_N, place_N, out_N = image_AN[h * width + d], position_AN[h * width + d], joined_DN[d]
            for n in range(len(rho_N)):
                out_N[n] = own_N[n] * (rho_N[n] * alpha_N[n]) + place_N[n]
        head_TD, head_TN = tokens_RD[h * tokens : (h + 1) * tokens], scores_RN[h * tokens :]
        sizes = (len(rho_N), tokens, width)
        _product(desk, 0, sizes, (block, width, block), 1, joined_DN, head_TD, head_TN)


@arithmetic_kernel
def _exponentiate(
    inside: int,
    top_R: Floats,
    total_RV: Floats,
    mixed_RD: Floats,
    sums_RK: Floats,
    lanes_V: Floats,
    scores_RN: Floats,
) -> None:
    """A block's shares before their division by the total; what was summed before follows a larger score."""
    for r in range(len(scores_RN)):
        scores_N = scores_RN[r]
        scores_N[inside:] = _LOWEST
        top = _largest(scores_N, lanes_V)
        if top > top_R[r]:
            scale = np.float32(np.exp(top_R[r] - top))
            top_R[r] = top
            _scale(mixed_RD[r], scale)
            _scale(sums_RK[r], scale)
            _scale(total_RV[r], scale)
        top = top_R[r]
        for n in range(len(scores_N)):
            scores_N[n] = _exponential(scores_N[n] - top)
        _add_lanes(scores_N, total_RV[r])


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
    desk: _Desk,
    carried_AN: Floats,
    constant_N: Floats,
    value_RD: Floats,
    rows_KN: Floats,
    heads: int,
    products_RN: Floats,
    cross_N: Floats,
) -> None:
    """(3)'s X . Z B of one layer: each value's product with X, times its row; the last tokens' row is one."""
    _scores_of_image(desk, carried_AN, value_RD, heads, len(cross_N), products_RN)
    tokens, ones_N = len(value_RD) // heads, rows_KN[len(rows_KN) - 1]
    for h in range(heads):
        for t in range(tokens - 1):
            product_N, row_N = products_RN[h * tokens + t], rows_KN[h * (tokens - 1) + t]
            for n in range(len(cross_N)):
                cross_N[n] += product_N[n] * row_N[n]
        product_N = products_RN[h * tokens + tokens - 1]
        for n in range(len(cross_N)):
            cross_N[n] += product_N[n] * ones_N[n]
    for n in range(len(cross_N)):
        cross_N[n] += constant_N[n] * ones_N[n]


@arithmetic_kernel
def _add_squares(
    desk: _Desk,
    gram_KK: Floats,
    first: int,
    after: int,
    rows_KN: Floats,
    products_KN: Floats,
    own_N: Floats,
) -> None:
    """(3)'s |Z B|^2: one layer's rows with themselves and those before."""
    num_rows, block = rows_KN.shape
    sizes = (len(own_N), after - first, after)
    _product(desk, 0, sizes, (block, num_rows, block), 0, rows_KN, gram_KK[first:after], products_KN)
    for k in range(after - first):
        product_N, row_N = products_KN[k], rows_KN[first + k]
        for n in range(len(own_N)):
            own_N[n] += product_N[n] * row_N[n]


@arithmetic_kernel
def _sum_rows(desk: _Desk, rows_KN: Floats, shares_RN: Floats, inside: int, sums_RK: Floats) -> None:
    """(4)'s share rho Z of a block, added."""
    num_rows, block = rows_KN.shape
    sizes = (num_rows, len(shares_RN), inside)
    _product(desk, 1, sizes, (block, block, num_rows), 1, rows_KN, shares_RN, sums_RK)


@arithmetic_kernel
def _sum_values(desk: _Desk, value_HND: Floats, shares_RN: Floats, inside: int, mixed_RD: Floats) -> None:
    """(4)'s share rho alpha X of a block behind the values' projection, added."""
    heads, block, width = value_HND.shape
    tokens = len(shares_RN) // heads
    sizes, strides = (width, tokens, inside), (width, block, width)
    for h in range(heads):
        shares_TN, mixed_TD = shares_RN[h * tokens :], mixed_RD[h * tokens :]
        _product(desk, 0, sizes, strides, 1, value_HND[h], shares_TN, mixed_TD)


@arithmetic_kernel
def _desk() -> _Desk:
    """N and T: not transposed, transposed; the factors 1, 0 and 1."""
    return _Desk(
        np.array([78, 84], np.uint8), np.zeros(6, np.int32), np.array([1.0, 0.0, 1.0], np.float32)
    )


@arithmetic_kernel
def _product(
    desk: _Desk,
    transposed: int,
    sizes: tuple[int, int, int],
    strides: tuple[int, int, int],
    add: int,
    right: Floats,
    left: Floats,
    out: Floats,
) -> None:
    """out = left right, or with `add` out += left right; BLAS's columns are rows here, so sides change.

    `sizes`: columns of `out`, its rows, the inner size. `transposed`: `right` is.
    """
    for i in range(3):
        desk.sizes[i], desk.sizes[3 + i] = sizes[i], strides[i]
    sgemm(
        desk.letters[transposed:].ctypes,
        desk.letters.ctypes,
        desk.sizes.ctypes,
        desk.sizes[1:].ctypes,
        desk.sizes[2:].ctypes,
        desk.factors.ctypes,
        right.ctypes,
        desk.sizes[3:].ctypes,
        left.ctypes,
        desk.sizes[4:].ctypes,
        desk.factors[1 + add :].ctypes,
        out.ctypes,
        desk.sizes[5:].ctypes,
    )


@arithmetic_kernel
def _load(rows_KS: Floats, start: int, stop: int, block_KN: Floats) -> None:
    """A block of the first rows."""
    for k in range(len(block_KN)):
        block_KN[k, : stop - start] = rows_KS[k, start:stop]


@arithmetic_kernel
def _store(block_KN: Floats, start: int, stop: int, rows_KS: Floats) -> None:
    """The other way."""
    for k in range(len(block_KN)):
        rows_KS[k, start:stop] = block_KN[k, : stop - start]


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
def _largest(values_N: Floats, lanes_V: Floats) -> np.float32:
    """Lane by lane, which the machine's vectors do, and then among the lanes."""
    values_GV = values_N.reshape(-1, _LANES)
    lanes_V[:] = values_GV[0]
    for g in range(1, len(values_GV)):
        for v in range(_LANES):
            lanes_V[v] = values_GV[g, v] if values_GV[g, v] > lanes_V[v] else lanes_V[v]
    top = lanes_V[0]
    for v in range(1, _LANES):
        top = lanes_V[v] if lanes_V[v] > top else top
    return top


@arithmetic_kernel
def _add_lanes(values_N: Floats, total_V: Floats) -> None:
    """A sum, kept by lane."""
    values_GV = values_N.reshape(-1, _LANES)
    for g in range(len(values_GV)):
        for v in range(_LANES):
            total_V[v] += values_GV[g, v]


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
