"""Photographs as their masks see them: passed through where they conform, made upright where they don't."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from maskmill.storage.errors import DamagedObject
from maskmill.workers.reading.samples import upright_jpeg
from tests.fakes import jpeg_bytes
from tests.workers.published import shapes, turned_jpeg


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def test_a_jpeg_that_conforms_comes_back_byte_for_byte() -> None:
    data = jpeg_bytes(shapes(1, 48, 64))
    assert upright_jpeg(data, 64, 48, "a.jpg") is data


def test_a_turned_one_is_made_upright() -> None:
    data = turned_jpeg(shapes(1, 48, 64))
    made = upright_jpeg(data, 48, 64, "a.jpg")
    assert made != data and size_of(made) == (48, 64)


def test_a_larger_one_is_made_smaller_to_its_masks() -> None:
    made = upright_jpeg(jpeg_bytes(shapes(1, 192, 256)), 128, 96, "a.jpg")
    assert size_of(made) == (128, 96)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"no picture", "tar::a.jpg: could be decoded when its masks were made, not now"),
        (
            jpeg_bytes(np.zeros((48, 64, 3), np.uint8)),
            "tar::a.jpg: is 64x48 px upright, but its masks are for",
        ),
    ],
)
def test_a_picture_that_is_no_longer_its_masks_is_damaged(data: bytes, told: str) -> None:
    with pytest.raises(DamagedObject, match=told):
        upright_jpeg(data, 70, 64, "tar::a.jpg")
