"""Where a crop's logits lie."""

from __future__ import annotations

import dataclasses

import pytest
from segment_anything.utils.transforms import ResizeLongestSide

from maskmill.pipeline.frame import Frame


@pytest.mark.parametrize(("height", "width"), [(1500, 2250), (480, 640), (7, 1000), (1023, 1024), (333, 100)])
def test_the_unpadded_part_is_the_reference_s(height: int, width: int) -> None:
    frame = Frame.of_image(1024, height=height, width=width)
    wanted = ResizeLongestSide.get_preprocess_shape(height, width, 1024)
    assert (frame.input_height, frame.input_width) == wanted
    assert frame.crop_xyxy == (0, 0, width, height)


def test_a_crop_is_scaled_by_its_own_longer_side() -> None:
    frame = Frame.of_crop(64, (10, 20, 42, 36), height=100, width=90)
    assert (frame.crop_height, frame.crop_width) == (16, 32)
    assert (frame.input_height, frame.input_width) == (32, 64)
    assert (frame.height, frame.width) == (100, 90)


@pytest.mark.parametrize("crop", [(5, 0, 5, 8), (0, 3, 8, 2), (-1, 0, 4, 4), (0, 0, 91, 10), (0, 0, 10, 101)])
def test_a_crop_that_is_empty_or_reaches_out_is_refused(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="is empty or reaches out of an image of 100 x 90"):
        Frame.of_crop(64, crop, height=100, width=90)


@pytest.mark.parametrize("change", [{"input_height": 0}, {"input_width": 65}])
def test_the_unpadded_part_lies_within_the_input(change: dict[str, int]) -> None:
    frame = Frame.of_image(64, height=100, width=90)
    with pytest.raises(ValueError, match="must lie within the model's input of 64 x 64"):
        dataclasses.replace(frame, **change)
