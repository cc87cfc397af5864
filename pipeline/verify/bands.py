"""Parts of each window about its mask's outline, and what colours or channels say of them.

    core      the mask without its two outermost samples, or all of a mask that has no more
    outline   a sample on either side of the edge; within, beyond: the next one
    outside   what lies between one and five samples from the mask; around: the mask and all that

A row of a window is 32 bits, so a part of a whole window is a few shifts and bitwise sums of its rows. Then
each sample lies somewhere on the line from the mean outside, 0, to the mean inside, 1, and `POOLED` says how
well the two are told apart.

Shape suffixes: N masks, S x S samples of a window (windows.py), G = S * S, D channels, E places, P columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.machine.compiled import arithmetic_kernel, kernel
from maskmill.pipeline.verify.windows import SIDE, Bools, Floats32, Windows

Flags = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

MASK, OUTLINE, WITHIN, BEYOND, CORE, OUTSIDE, AROUND = (1 << place for place in range(7))
POOLED = ("fisher", "told_inside", "told_outside", "outline_between", "refit")

_FULL = (1 << SIDE) - 1
_LEAST_CORE = 4
_FAR = 5


def parts_of(where: Windows) -> Flags:
    """uint8[N, G]: of which parts each sample is, `MASK` to `AROUND` added up."""
    parts_NG = np.zeros((len(where.mask_NSS), SIDE * SIDE), np.uint8)
    _flag(where.mask_NSS, where.within_NSS, parts_NG)
    return parts_NG


def samples_in(parts_NG: Flags, part: int) -> Floats32:
    """float32[N]: how many samples are of a part."""
    found: Floats32 = np.count_nonzero(parts_NG & part, axis=1).astype(np.float32)
    return found


def line(inside_ND: Floats32, outside_ND: Floats32) -> tuple[Floats32, Floats32, Floats32]:
    """From outside, 0, to inside, 1: a projection's divisor, what is taken off before, its direction."""
    toward_ND = inside_ND - outside_ND
    scale_N = (toward_ND**2).sum(axis=1) + np.float32(1e-3 * toward_ND.shape[1])
    return scale_N, (toward_ND * outside_ND).sum(axis=1), toward_ND


def told_apart(along_NG: Floats32, parts_NG: Flags) -> Floats32:
    """float32[N, len(POOLED)], from where each sample lies between outside and inside.

    Args:
        along_NG: 0 outside, 1 inside.
        parts_NG: of `parts_of`.
    """
    found_NP = np.empty((len(along_NG), len(POOLED)), np.float32)
    _tell_apart(along_NG, parts_NG, found_NP)
    return found_NP


def of_colours(colour_NG3: Floats32, parts_NG: Flags) -> Floats32:
    """float32[N, len(POOLED) + 1]: colours told apart, and how much stronger edges are on the outline.

    The last is the logarithm of the mean change of colour there against within or beyond it.

    Args:
        colour_NG3: of the samples, in units of the picture's deviation.
        parts_NG: of `parts_of`.
    """
    means_NP3 = np.empty((len(colour_NG3), 2, 3), np.float32)
    edges_NP = np.empty((len(colour_NG3), 3), np.float32)
    _colours(colour_NG3, parts_NG, means_NP3, edges_NP)
    scale_N, offset_N, toward_N3 = line(means_NP3[:, 0], means_NP3[:, 1])
    along_NG = np.empty(parts_NG.shape, np.float32)
    _project(colour_NG3, toward_N3, offset_N, scale_N, along_NG)
    outline_N, within_N, beyond_N = np.log(edges_NP + np.float32(3e-2)).T
    stronger_N = outline_N - np.maximum(within_N, beyond_N)
    return np.column_stack([told_apart(along_NG, parts_NG), stronger_N])


def weights_at(parts_NG: Flags, part: int, place_NG: Ints, places: int) -> Floats32:
    """float32[N, E]: how many samples of a part lie over each of E places.

    Args:
        parts_NG: of `parts_of`.
        part: which.
        place_NG: of each sample, 0 to E - 1.
        places: E.
    """
    weight_NE = np.zeros((len(parts_NG), places), np.float32)
    _weigh(parts_NG, part, place_NG, weight_NE)
    return weight_NE


@kernel
def _grown(bits_S: Ints, reach: int) -> Ints:
    """Rows of bits, grown by so many samples to all sides, corners too; what leaves the window is gone."""
    wide_S, grown_S = bits_S.copy(), np.zeros(SIDE, np.int64)
    for y in range(SIDE):
        for step in range(1, reach + 1):
            wide_S[y] |= (bits_S[y] << step | bits_S[y] >> step) & _FULL
    for y in range(SIDE):
        for other in range(max(0, y - reach), min(SIDE, y + reach + 1)):
            grown_S[y] |= wide_S[other]
    return grown_S


@kernel
def _flag(mask_NSS: Bools, within_NSS: Bools, parts_NG: Flags) -> None:
    """Grown and shrunk masks as bits of rows, then flags; what a mask loses is its opposite, grown."""
    part_PS = np.zeros((7, SIDE), np.int64)
    for n in range(len(mask_NSS)):
        mask, here = np.zeros(SIDE, np.int64), np.zeros(SIDE, np.int64)
        for y in range(SIDE):
            for x in range(SIDE):
                mask[y] |= np.int64(mask_NSS[n, y, x]) << x
                here[y] |= np.int64(within_NSS[n, y, x]) << x
        grown, wide, far = _grown(mask, 1), _grown(mask, 2), _grown(mask, _FAR)
        shrunk, deep = ~_grown(~mask & _FULL, 1) & _FULL, ~_grown(~mask & _FULL, 2) & _FULL
        core = 0
        for y in range(SIDE):
            for x in range(SIDE):
                core += deep[y] >> x & 1

        # In the order of the flags
        part_PS[0], part_PS[1] = mask, grown & ~shrunk & here
        part_PS[2], part_PS[3] = shrunk & ~deep, wide & ~grown & here
        part_PS[4] = deep if core > _LEAST_CORE else mask
        part_PS[5], part_PS[6] = far & ~grown & here, far & here
        for y in range(SIDE):
            for x in range(SIDE):
                flags = 0
                for part in range(7):
                    flags |= (part_PS[part, y] >> x & 1) << part
                parts_NG[n, y * SIDE + x] = flags


@arithmetic_kernel
def _tell_apart(along_NG: Floats32, parts_NG: Flags, found_NP: Floats32) -> None:
    for n in range(len(along_NG)):
        inside = outside = mask = outline = 0
        sum_in = sum_out = sum_outline = 0.0
        mask_told = outside_told = nearer = common = 0
        for g in range(along_NG.shape[1]):
            along, flags = along_NG[n, g], parts_NG[n, g]
            is_mask, is_outside = flags & MASK != 0, flags & OUTSIDE != 0
            mask += is_mask
            mask_told += is_mask and along > 0.5
            if flags & CORE:
                inside += 1
                sum_in += along
            if is_outside:
                outside += 1
                sum_out += along
                outside_told += along < 0.5
            if flags & OUTLINE:
                outline += 1
                sum_outline += along
            if flags & AROUND and along > 0.5:
                nearer += 1
                common += is_mask

        mean_in, mean_out = sum_in / max(inside, 1), sum_out / max(outside, 1)
        squares_in = squares_out = 0.0
        for g in range(along_NG.shape[1]):
            along, flags = along_NG[n, g], parts_NG[n, g]
            if flags & CORE:
                squares_in += (along - mean_in) ** 2
            if flags & OUTSIDE:
                squares_out += (along - mean_out) ** 2
        spread = squares_in / max(inside, 1) + squares_out / max(outside, 1) + 1e-3
        found_NP[n, 0] = np.log1p((mean_in - mean_out) ** 2 / spread)
        found_NP[n, 1] = mask_told / max(mask, 1)
        found_NP[n, 2] = outside_told / max(outside, 1)
        found_NP[n, 3] = min(max(sum_outline / max(outline, 1), -1.0), 2.0)
        found_NP[n, 4] = common / max(nearer + mask - common, 1)


@arithmetic_kernel
def _colours(colour_NG3: Floats32, parts_NG: Flags, means_NP3: Floats32, edges_NP: Floats32) -> None:
    """Mean colours of core and outside; mean change of colour on the outline, within it, beyond it."""
    for n in range(len(colour_NG3)):
        sums, counts = np.zeros((2, 3)), np.zeros(2)
        changes, changed = np.zeros(3), np.zeros(3)
        for y in range(SIDE):
            up, down = max(y - 1, 0) * SIDE, min(y + 1, SIDE - 1) * SIDE
            for x in range(SIDE):
                place, flags = y * SIDE + x, parts_NG[n, y * SIDE + x]
                for which, part in enumerate((CORE, OUTSIDE)):
                    if flags & part:
                        counts[which] += 1
                        for channel in range(3):
                            sums[which, channel] += colour_NG3[n, place, channel]
                if flags & (OUTLINE | WITHIN | BEYOND):
                    left, right = y * SIDE + max(x - 1, 0), y * SIDE + min(x + 1, SIDE - 1)
                    square = 0.0
                    for channel in range(3):
                        across = colour_NG3[n, right, channel] - colour_NG3[n, left, channel]
                        along = colour_NG3[n, down + x, channel] - colour_NG3[n, up + x, channel]
                        square += across * across + along * along
                    for which, part in enumerate((OUTLINE, WITHIN, BEYOND)):
                        if flags & part:
                            changed[which] += 1
                            changes[which] += np.sqrt(square)
        for which in range(2):
            for channel in range(3):
                means_NP3[n, which, channel] = sums[which, channel] / max(counts[which], 1)
        for which in range(3):
            edges_NP[n, which] = changes[which] / max(changed[which], 1)


@arithmetic_kernel
def _project(
    colour_NG3: Floats32, toward_N3: Floats32, offset_N: Floats32, scale_N: Floats32, along_NG: Floats32
) -> None:
    for n in range(len(colour_NG3)):
        red, green, blue = toward_N3[n, 0], toward_N3[n, 1], toward_N3[n, 2]
        for g in range(colour_NG3.shape[1]):
            along = red * colour_NG3[n, g, 0] + green * colour_NG3[n, g, 1] + blue * colour_NG3[n, g, 2]
            along_NG[n, g] = (along - offset_N[n]) / scale_N[n]


@kernel
def _weigh(parts_NG: Flags, part: int, place_NG: Ints, weight_NE: Floats32) -> None:
    for n in range(len(parts_NG)):
        for g in range(parts_NG.shape[1]):
            if parts_NG[n, g] & part:
                weight_NE[n, place_NG[n, g]] += 1
