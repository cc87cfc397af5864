"""Label Studio's run lengths, against its own decoder restated (label_studio_converter/brush.py)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from maskmill.workers.tools import brush_rle


def their_decode(rle: list[int]) -> NDArray[np.uint8]:
    """`decode_rle`: a stream of bits, read one field after another."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def read(size: int) -> int:
        nonlocal at
        out, at = int(bits[at : at + size], 2), at + size
        return out

    num, word_size = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    i, out = 0, np.zeros(num, np.uint8)
    while i < num:
        x = read(1)
        j = i + 1 + read(sizes[read(2)])
        if x:
            out[i:j] = read(word_size)
            i = j
        else:
            while i < j:
                out[i] = read(word_size)
                i += 1
    return out


def shapes() -> list[NDArray[np.bool_]]:
    draw = np.random.default_rng(0)
    disc = np.hypot(*np.mgrid[-40:41, -60:61]) < 33
    return [
        np.zeros((5, 7), np.bool_),
        np.ones((5, 7), np.bool_),
        draw.random((31, 17)) < 0.5,
        disc,
        np.ones((300, 500), np.bool_),  # runs beyond 16 bits
        np.array([[True]]),
    ]


@pytest.mark.parametrize("place", range(6))
def test_their_decoder_and_ours_give_the_mask_back(place: int) -> None:
    mask_HW = shapes()[place]
    height, width = mask_HW.shape
    rle = brush_rle.encode(mask_HW)
    theirs = their_decode(rle).reshape(height, width, 4)
    assert (theirs[:, :, 3] == 255 * mask_HW).all()
    assert (theirs == theirs[:, :, :1]).all()
    assert (brush_rle.decode(rle, height=height, width=width) == mask_HW).all()


def test_literals_are_read_too() -> None:
    bits = f"{8:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "0" + "00" + f"{7:03b}" + "".join(f"{value:08b}" for value in (0, 0, 0, 255, 0, 0, 0, 9))
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert brush_rle.decode(rle, height=1, width=2).tolist() == [[True, True]]


@pytest.mark.parametrize(
    ("rle", "message"),
    [([], "end too early"), ([1, 2, 3], "end too early"), ([300], "bytes"), ([255] * 40, "no picture")],
)
def test_damage_is_said(rle: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        brush_rle.decode(rle, height=2, width=2)
    with pytest.raises(ValueError, match="values; a picture of 3x3 px"):
        brush_rle.decode(brush_rle.encode(np.ones((2, 2), np.bool_)), height=3, width=3)
