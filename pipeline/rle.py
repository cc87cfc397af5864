"""Run-length encoded masks: COCO's compressed form, and what can be asked of it without pixels.

A mask is read column by column (Fortran order) as alternating lengths of zeros and ones, the zeros first.
COCO writes each length as the difference from the length two before it, five bits a character from '0' on,
lowest first, with a continuation bit and a sign bit. The strings equal pycocotools' byte for byte.

What it does not know: crops and logits (upsample.py), islands and holes (regions.py).

Shape legend: H, W the mask's height and width, N masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.machine.compiled import kernel

BoolHW = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]

MAX_PIXELS = 2**31 - 1  # pycocotools keeps lengths in 32 bits


@dataclass(frozen=True)
class Rle:
    """A binary mask of height x width pixels; `counts` is COCO's compressed string in ASCII."""

    height: int
    width: int
    counts: bytes

    def __post_init__(self) -> None:
        _check_size(self.height, self.width)

    def to_coco(self) -> dict[str, Any]:
        """`{"size": [h, w], "counts": str}`, as JSON and pycocotools want it."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}

    @classmethod
    def from_coco(cls, segmentation: Mapping[str, Any]) -> Rle:
        """The opposite of `to_coco`; counts may also be bytes, or a list of run lengths.

        Raises:
            ValueError: no size or counts, or lengths that do not fill height x width (found now for a list,
                at the first use of the lengths for a string).
        """
        if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= segmentation.keys():
            raise ValueError(f'a COCO mask has "size" and "counts"; this is {str(segmentation)[:80]}')
        counts = segmentation["counts"]
        try:
            height, width = (int(side) for side in segmentation["size"])
            if isinstance(counts, str):
                counts = counts.encode("ascii")
            if isinstance(counts, bytes):
                return cls(height, width, counts)
            return from_run_lengths(height, width, counts)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"not a COCO mask ({error}): {str(segmentation)[:80]}") from error


def encode_mask(mask_HW: BoolHW) -> Rle:
    """Args: mask_HW bool[H, W]. Raises ValueError for another dtype or rank."""
    if mask_HW.ndim != 2 or mask_HW.dtype != np.bool_:
        raise ValueError(f"a mask is bool[H, W]; this one is {mask_HW.dtype}{list(mask_HW.shape)}")
    height, width = mask_HW.shape
    flat = np.ascontiguousarray(mask_HW.T).ravel()
    toggles = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first = [0, 0] if flat[:1].any() else [0]
    return from_run_lengths(height, width, np.diff(np.concatenate([first, toggles, [flat.size]])))


def decode(rle: Rle) -> BoolHW:
    """bool[H, W] in C order. Raises ValueError for damaged counts."""
    lengths = run_lengths(rle)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(flat.reshape(rle.width, rle.height).T)


def run_lengths(rle: Rle) -> Ints:
    """int64[R]: lengths of zeros, ones, zeros ... that add up to height x width.

    Raises:
        ValueError: the string is cut off, holds other characters, or its lengths do not fill the mask.
    """
    lengths, ok = _decompress(np.frombuffer(rle.counts, np.uint8))
    if not ok or lengths.sum() != rle.height * rle.width or (lengths < 0).any():
        shown = rle.counts[:40]
        raise ValueError(f"damaged run lengths for a mask of {rle.height} x {rle.width} pixels: {shown!r}...")
    return lengths


def from_run_lengths(height: int, width: int, lengths: npt.ArrayLike) -> Rle:
    """The opposite of `run_lengths`.

    Raises:
        ValueError: the lengths are negative or do not add up to height x width.
    """
    _check_size(height, width)
    run = np.ascontiguousarray(lengths, np.int64)
    most = height * width  # each one too: a sum can wrap around
    if run.ndim != 1 or run.sum() != most or (run < 0).any() or (run > most).any():
        raise ValueError(
            f"run lengths of a {height} x {width} mask must be positive and add up to {height * width}; "
            f"these add up to {run.sum()}"
        )
    return Rle(height, width, _compress(run).tobytes())


def from_changes(xs: Indices, ys: Indices, *, x: int, y: int, columns: int, height: int, width: int) -> Rle:
    """A mask from the places where it changes down its columns.

    Each column begins with zeros above its first row and is closed with zeros, so it has an even number of
    changes.

    Args:
        xs, ys: int32[R] each: columns and rows in a crop's frame; rows ascend within a column.
        x, y: the crop's corner in the image, in px.
        columns: of the crop.
        height, width: of the image in px.
    """
    lengths = _changes_to_lengths(xs, ys, columns, y + x * height, height, width)
    return from_run_lengths(height, width, lengths)


def from_places(places: Ints | Indices, *, height: int, width: int) -> Rle:
    """A mask from the places where it changes, in order.

    Args:
        places: int32 or int64[R], pixels of the image before each change, column by column; an even number.
        height, width: of the image in px.
    """
    return from_run_lengths(height, width, _places_to_lengths(places.astype(np.int64), height * width))


def area_px(rle: Rle) -> int:
    """How many pixels are set."""
    return int(run_lengths(rle)[1::2].sum())


def box_xyxy(rle: Rle) -> tuple[int, int, int, int]:
    """Inclusive corners in px, zeros for an empty mask (the reference's batched_mask_to_box)."""
    left, top, right, bottom = _box(run_lengths(rle), rle.height)
    return int(left), int(top), int(right), int(bottom)


def place(rle: Rle, *, x: int, y: int, height: int, width: int) -> Rle:
    """The mask of a crop whose corner lies at (x, y) of an image of height x width.

    Raises:
        ValueError: the crop reaches out of the image.
    """
    if x < 0 or y < 0 or x + rle.width > width or y + rle.height > height:
        raise ValueError(
            f"a mask of {rle.height} x {rle.width} pixels at x={x}, y={y} "
            f"reaches out of an image of {height} x {width}"
        )
    return from_run_lengths(height, width, _place(run_lengths(rle), rle.height, x, y, height, width))


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(
            f"a mask of {height} x {width} pixels; give positive sides and at most {MAX_PIXELS} pixels"
        )


@kernel
def _compress(lengths: Ints) -> Bytes:
    # pycocotools' rleToString; a difference of 32-bit lengths needs at most 7 characters
    text = np.empty(7 * lengths.size, np.uint8)
    used = 0
    for i in range(lengths.size):
        value = lengths[i]
        if i > 2:
            value -= lengths[i - 2]
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text[used] = (bits | 0x20 if more else bits) + 48
            used += 1
    return text[:used]


@kernel
def _decompress(text: Bytes) -> tuple[Ints, bool]:
    # pycocotools' rleFrString; False when the string ends within a number or holds foreign characters
    lengths = np.empty(text.size, np.int64)
    used = 0
    value = np.int64(0)
    shift = 0
    for i in range(text.size):
        bits = np.int64(text[i]) - 48
        if bits < 0 or bits > 63 or shift > 30:
            return lengths[:0], False

        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value |= np.int64(-1) << shift
            if used > 2:
                value += lengths[used - 2]
            lengths[used] = value
            used += 1
            value = np.int64(0)
            shift = 0
    return lengths[:used], shift == 0


@kernel
def _box(lengths: Ints, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = -1, height, -1, -1
    end = 0
    for i in range(lengths.size):
        start = end
        end += lengths[i]
        if i % 2 == 0 or start == end:
            continue
        first_x, last_x = start // height, (end - 1) // height
        if left < 0:
            left = first_x
        right = last_x
        if first_x == last_x:
            top = min(top, start - first_x * height)
            bottom = max(bottom, end - 1 - first_x * height)
        else:  # it goes on at the next column's top
            top, bottom = 0, height - 1
    if left < 0:
        return 0, 0, 0, 0
    return left, top, right, bottom


@kernel
def _place(lengths: Ints, crop_height: int, x: int, y: int, height: int, width: int) -> Ints:
    # Cut the runs at column ends, shift each piece, join pieces that touch again.
    num_pieces = 1
    end = 0
    for i in range(lengths.size):
        start = end
        end += lengths[i]
        if i % 2 == 1 and end > start:
            num_pieces += (end - 1) // crop_height - start // crop_height + 1
    out = np.empty(2 * num_pieces + 1, np.int64)
    used = 0
    written = 0  # pixels that out[:used] covers
    end = 0
    for i in range(lengths.size):
        start = end
        end += lengths[i]
        while i % 2 == 1 and start < end:
            column = start // crop_height
            stop = min(end, (column + 1) * crop_height)
            shift = (column + x) * height + y - column * crop_height
            if used > 0 and start + shift == written:
                out[used - 1] += stop - start
            else:
                out[used] = start + shift - written
                out[used + 1] = stop - start
                used += 2
            written = stop + shift
            start = stop
    if written < height * width or used == 0:
        out[used] = height * width - written
        used += 1
    return out[:used]


@kernel
def _changes_to_lengths(
    xs: Indices, ys: Indices, num_columns: int, corner: int, height: int, width: int
) -> Ints:
    used = xs.size

    # A stable counting sort by column keeps the rows ascending within each
    start = np.zeros(num_columns + 1, np.int64)
    for i in range(used):
        start[xs[i] + 1] += 1
    for x in range(num_columns):
        start[x + 1] += start[x]
    places = np.empty(used, np.int64)
    for i in range(used):
        places[start[xs[i]]] = corner + xs[i] * height + ys[i]
        start[xs[i]] += 1

    return _places_to_lengths(places, height * width)


@kernel
def _places_to_lengths(places: Ints, num_pixels: int) -> Ints:
    # Differences of the places; what meets at the end of a column is one run
    used = places.size
    lengths = np.empty(used + 1, np.int64)
    count = 0
    last = 0
    for i in range(used):
        if count > 0 and places[i] == last:
            count -= 1
            last -= lengths[count]
        else:
            lengths[count] = places[i] - last
            count += 1
            last = places[i]
    if last < num_pixels or count == 0:
        lengths[count] = num_pixels - last
        count += 1
    return lengths[:count]
