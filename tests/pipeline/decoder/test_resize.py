"""The banded resize against PIL's own."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from maskmill.pipeline.decoder import resize as module
from maskmill.pipeline.decoder.resize import resize

SIZES = [
    ((120, 160), (192, 256)),
    ((97, 61), (256, 161)),
    ((1, 300), (1, 64)),
    ((300, 1), (64, 1)),
    ((50, 64), (50, 64)),
    ((331, 495), (43, 64)),
    ((2, 2), (64, 64)),
]


@pytest.mark.parametrize(("old_hw", "new_hw"), SIZES)
@pytest.mark.parametrize("band_pixels", [1, 5000, 2**18])
def test_bytes_are_pils(
    old_hw: tuple[int, int], new_hw: tuple[int, int], band_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BAND_PIXELS", band_pixels)
    image = np.random.default_rng(0).integers(0, 256, (*old_hw, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(new_hw[::-1], Image.Resampling.BILINEAR))
    assert np.array_equal(resize(image, height=new_hw[0], width=new_hw[1], threads=2), expected)


def test_a_view_of_a_larger_image_is_no_other() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    view = image[5:45, 10:70]
    expected = np.asarray(Image.fromarray(view.copy()).resize((32, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(resize(view, height=24, width=32), expected)
