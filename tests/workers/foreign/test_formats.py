"""One list of image formats: what is opened, and the endings of files that are taken in."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from maskmill.storage.plan.endings import IMAGE_ENDINGS, IMAGE_FORMATS
from maskmill.workers.foreign.images.codec import FORMATS, decode_image


def test_the_codec_opens_the_formats_whose_endings_are_inputs() -> None:
    assert tuple(IMAGE_FORMATS) == FORMATS
    assert len(set(IMAGE_ENDINGS)) == len(IMAGE_ENDINGS)


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_endings_are_those_of_the_format(format: str) -> None:
    Image.init()
    known = Image.registered_extensions()
    assert {known.get(ending) for ending in IMAGE_FORMATS[format]} == {format}


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_a_file_of_each_format_is_decoded(format: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (200, 30, 40)).save(buffer, format)
    pixels = decode_image(buffer.getvalue())
    assert pixels.shape == (16, 24, 3)
    assert abs(pixels.astype(int) - (200, 30, 40)).max() < 12
