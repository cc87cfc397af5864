"""Perceptual hashes: is this the same picture again, recompressed, resized or brightened?

A picture's hash is the signs of its 256 lowest frequencies: its grey values, averaged to 64 x 64, go through
a cosine transform, of which the 16 x 16 lowest rows and columns are kept, less the mean (the usual pHash,
Zauner 2010, with 256 bits instead of 64, and signs instead of the median, so that contrast and brightness
change nothing). Copies differ in the few bits whose frequencies are all but absent; pictures that have
nothing to do with each other differ in 128 of 256, give or take 8.

Finding copies among many is banding: the bits are cut into sixteen words of sixteen, lowest frequencies
first, and only pictures that share a word are compared. Two within 15 bits share one for certain; beyond, the
lowest frequencies, which copies keep, all but always do.

What it doesn't know: crops, mirror images and turned pictures have other frequencies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

UInt64Array = npt.NDArray[np.uint64]
UInt16Array = npt.NDArray[np.uint16]
IntArray = npt.NDArray[np.int64]

SIDE_PX = 64
BITS = 256
MAX_DISTANCE = 48
FLAT = 1.0  # grey levels: the spread below which a picture has nothing to tell it by
_BLOCK = 1 << 20

_ROWS, _COLUMNS = np.divmod(np.arange(17 * 17), 17)
_ORDER = np.lexsort((_COLUMNS, _ROWS, np.maximum(_ROWS, _COLUMNS)))[1 : BITS + 1]
"""Places among the 17 x 17 lowest frequencies, lowest first, the mean left out."""


def picture_hash(pixels_HWC: npt.NDArray[np.uint8]) -> str | None:
    """The hash of a picture, or None for one without anything to tell it by.

    Args:
        pixels_HWC: uint8, RGB, or HW grey.

    Returns:
        64 hex digits, lowest frequencies first.
    """
    grey = Image.fromarray(pixels_HWC).convert("L")
    small = np.asarray(grey.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX), np.float32)
    if small.std() < FLAT:
        return None
    frequencies = dctn(small, norm="ortho")[:17, :17].ravel()[_ORDER]
    return np.packbits(frequencies > 0).tobytes().hex()


def to_words(hashes: Sequence[str]) -> UInt64Array:
    """Hashes as numbers: uint64, (hashes, 4).

    Raises:
        ValueError: one isn't 64 hex digits.
    """
    data = bytes.fromhex("".join(hashes))
    if len(data) != len(hashes) * BITS // 8:
        raise ValueError(f"a hash is {BITS // 4} hex digits; these have {2 * len(data)} in all")
    return np.frombuffer(data, np.uint64).reshape(-1, BITS // 64)


def distances(left: UInt64Array, right: UInt64Array) -> UInt16Array:
    """Bits in which two hashes differ, row by row; both (rows, 4), gives uint16."""
    apart: UInt16Array = np.bitwise_count(left ^ right).sum(axis=-1, dtype=np.uint16)
    return apart


def near_pairs(words: UInt64Array, max_distance: int = MAX_DISTANCE) -> IntArray:
    """Pairs of hashes that differ in at most so many bits and share a word of sixteen.

    Args:
        words: as `to_words` has them.
        max_distance: in bits, of 256.

    Returns:
        int64, (pairs, 2), the smaller index first, each pair once. Of hashes that are equal, each is paired
        with the first of them alone: as groups they are the same.
    """
    # Equal ones first, so that a thousand black frames are not half a million pairs
    distinct, first, which = np.unique(words, axis=0, return_index=True, return_inverse=True)
    firsts = first[which.ravel()]
    copies = np.flatnonzero(firsts != np.arange(len(words)))
    found = [np.stack([firsts[copies], copies], axis=1)]

    bands = distinct.view(np.uint16).reshape(len(distinct), -1)
    for band in range(bands.shape[1]):
        order = np.argsort(bands[:, band], kind="stable")
        for left, right in _together(bands[order, band]):
            left, right = order[left], order[right]
            near = distances(distinct[left], distinct[right]) <= max_distance
            left, right = left[near], right[near]
            earlier = (bands[left, :band] == bands[right, :band]).any(axis=1)
            found.append(np.stack([first[left[~earlier]], first[right[~earlier]]], axis=1))
    return np.sort(np.concatenate(found), axis=1)


def _together(values: UInt16Array) -> Iterator[tuple[IntArray, IntArray]]:
    """All pairs of places that hold the same value, of sorted values, some at a time."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    sizes = np.diff(np.r_[starts, len(values)])
    after = np.repeat(starts + sizes, sizes) - np.arange(len(values)) - 1  # partners behind each place
    ends = np.cumsum(after)
    begun = 0
    while begun < len(values):
        # As many places as have a block's pairs together, one at least
        done = ends[begun - 1] if begun else 0
        until = max(begun + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
        count = after[begun:until]
        left = np.repeat(np.arange(begun, until), count)
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        yield left, left + 1 + step
        begun = until


def groups(num_hashes: int, pairs: IntArray) -> list[IntArray]:
    """Hashes that hang together by pairs, two at least: indices of each group, ascending, by its first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), (num_hashes, num_hashes))
    _, label = connected_components(links, directed=False)
    order = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    found = [group for group in np.split(order, cuts) if len(group) > 1]
    return sorted(found, key=lambda group: int(group[0]))
