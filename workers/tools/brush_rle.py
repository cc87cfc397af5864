"""Label Studio's run lengths of a brush: bits, of an RGBA picture in which a mask's pixels are 255.

    32 bits number of values, 5 bits word size - 1, 4 x 4 bits sizes of lengths - 1, then
    1 bit run or literal, 2 bits which size, that many bits length - 1, one word or as many as the length

Source: label_studio_converter/brush.py (`encode_rle`, `decode_rle`), thi.ng's rle-pack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 8
LENGTH_BITS = (3, 4, 8, 16)
CHANNELS = 4
MAX_VALUES = 2**31


def encode(mask_HW: NDArray[np.bool_]) -> list[int]:
    """A mask as bytes, the numbers that a task's `rle` holds."""
    flat = mask_HW.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    values = flat[bounds[:-1]]
    head = [(flat.size * CHANNELS, 32), (WORD_BITS - 1, 5), *((size - 1, 4) for size in LENGTH_BITS)]
    words = [*head]
    for value, pixels in zip(values.tolist(), np.diff(bounds).tolist(), strict=True):
        words += _run(255 if value else 0, pixels * CHANNELS)
    return _packed(words)


def decode(rle: Sequence[int], *, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a task's `rle`: bool[height, width], pixels whose alpha isn't 0.

    Raises:
        ValueError: no such bytes, or of another size.
    """
    try:
        bits = np.unpackbits(np.array(rle, np.uint8))
    except (OverflowError, TypeError, ValueError) as exc:
        raise ValueError(f"brush run lengths are bytes, 0 to 255 ({exc})") from exc
    values = _values(bits)
    if values.size != height * width * CHANNELS:
        raise ValueError(
            f"brush run lengths of {values.size} values; a picture of {width}x{height} px has "
            f"{height * width * CHANNELS}"
        )
    alpha: NDArray[np.bool_] = values.reshape(height, width, CHANNELS)[:, :, CHANNELS - 1] > 0
    return alpha


def _run(value: int, length: int) -> Iterator[tuple[int, int]]:
    """A run as (number, bits); a long one is cut."""
    while length:
        part = min(length, 2 ** LENGTH_BITS[-1])
        which = next(place for place, bits in enumerate(LENGTH_BITS) if part <= 2**bits)
        yield from ((1, 1), (which, 2), (part - 1, LENGTH_BITS[which]), (value, WORD_BITS))
        length -= part


def _packed(words: Sequence[tuple[int, int]]) -> list[int]:
    text = "".join(f"{number:0{bits}b}" for number, bits in words)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]


def _values(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The values that bits stand for. Raises ValueError."""
    at = 0

    def read(count: int) -> int:
        """The number in the next bits. Raises ValueError where they end."""
        nonlocal at
        if at + count > bits.size:
            raise ValueError("brush run lengths end too early")
        number = int("".join(map(str, bits[at : at + count].tolist())) or "0", 2)
        at += count
        return number

    total, word_bits = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if total > MAX_VALUES:
        raise ValueError(f"brush run lengths of {total} values: no picture is so large")
    values, filled = np.zeros(total, np.uint8), 0
    while filled < total:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        end = min(filled + length, total)
        if is_run:
            values[filled:end] = read(word_bits) & 255
        else:
            values[filled:end] = [read(word_bits) & 255 for _ in range(end - filled)]
        filled = end
    return values
