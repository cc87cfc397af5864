"""Pictures of more than 8 bits: what becomes black and white, and what is told of it."""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from maskmill.workers.foreign.images.codec import DecodeError, normalise
from maskmill.workers.run.ingest_settings import IngestSettings

Values = npt.NDArray[np.generic]


def cells(low: int, high: int) -> npt.NDArray[np.uint16]:
    """A bright spot on a dim ground, from `low` to `high`."""
    y, x = np.mgrid[:96, :128]
    spot = np.exp(-((x - 64) ** 2 + (y - 48) ** 2) / 400)
    return (low + (high - low) * (spot - spot.min()) / (spot.max() - spot.min())).astype(np.uint16)


def tiff(values: Values, **tags: int) -> bytes:
    buffer = io.BytesIO()
    numbers = {"photometric": 262}
    Image.fromarray(values).save(
        buffer, "TIFF", tiffinfo={numbers[name]: value for name, value in tags.items()}
    )
    return buffer.getvalue()


def encoded(ending: str, values: Values, *options: int) -> bytes:
    """By OpenCV, which writes 16 bits a channel."""
    done, data = cv2.imencode(ending, values[..., ::-1] if values.ndim == 3 else values, list(options))
    assert done
    return data.tobytes()


def stored(data: bytes, range: str, **more: int) -> npt.NDArray[np.uint8]:
    return normalise(data, IngestSettings(range=range, **more)).pixels_HWC


GREY_WRITERS = {
    "tiff": tiff,
    "png": lambda values: encoded(".png", values),
    "pgm": lambda values: encoded(".pgm", values),
    "jpeg 2000": lambda values: encoded(".jp2", values),
}


@pytest.mark.parametrize("writer", GREY_WRITERS)
@pytest.mark.parametrize(("low", "high"), [(300, 3800), (0, 1023), (30_000, 34_000)])
def test_few_of_sixteen_bits_are_told_of_and_can_be_stretched(writer: str, low: int, high: int) -> None:
    data = GREY_WRITERS[writer](cells(low, high))
    full = normalise(data, IngestSettings())
    assert full.narrow and np.ptp(full.pixels_HWC.astype(int)) < 24
    for range in ("min-max", "percentile"):
        found = normalise(data, IngestSettings(range=range))
        assert not found.narrow and found.pixels_HWC.min() < 8 and found.pixels_HWC.max() > 247


def test_a_picture_that_fills_its_range_is_not_told_of() -> None:
    assert not normalise(tiff(cells(0, 65_535)), IngestSettings()).narrow
    assert not normalise(tiff(np.full((64, 64), 300, np.uint16)), IngestSettings()).narrow  # nothing to see


@pytest.mark.parametrize("range", ["full", "min-max", "percentile"])
def test_white_may_be_zero(range: str) -> None:
    values = cells(0, 65_535)
    upright, inverted = stored(tiff(values), range), stored(tiff(values, photometric=0), range)
    assert np.abs(255 - upright.astype(int) - inverted).max() <= 3


def test_white_is_zero_by_the_first_rules_is_as_it_was() -> None:
    data = tiff(np.full((64, 64), 60_000, np.uint16), photometric=0)
    assert stored(data, "full").mean() == pytest.approx(22, abs=1)
    assert stored(data, "full", rules=1).mean() == pytest.approx(233, abs=1)


COLOUR_WRITERS = {
    "png": (".png",),
    "tiff": (".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 1),
    "tiff, lzw": (".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 5),
    "tiff, deflate": (".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 8),
}


@pytest.mark.parametrize("writer", COLOUR_WRITERS)
def test_colour_keeps_its_low_bytes(writer: str) -> None:
    """Values from 256 to 511 have one high byte: all that is seen comes from the low ones."""
    ramp = np.tile(np.arange(256, 512, 2, dtype=np.uint16), (64, 1))
    values = np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 256)], axis=-1)
    ending, *options = COLOUR_WRITERS[writer]
    data = encoded(str(ending), values, *(int(option) for option in options))
    found = normalise(data, IngestSettings(range="min-max"))
    wanted = np.stack([np.linspace(0, 255, 128), np.linspace(255, 0, 128), np.zeros(128)], axis=-1)
    assert np.abs(found.pixels_HWC[32].astype(int) - wanted).mean() < 4
    full = normalise(data, IngestSettings())
    assert full.narrow and full.pixels_HWC.max() <= 2
    assert full.jpeg == normalise(data, IngestSettings(rules=1)).jpeg


def test_colour_with_alpha_is_laid_on_white() -> None:
    values = np.full((64, 64, 4), 600, np.uint16)
    values[..., 0] = 200
    values[:, 32:, 3] = 65_535
    values[:, :32, 3] = 0
    done, data = cv2.imencode(".png", values)
    assert done
    pixels = stored(data.tobytes(), "min-max").astype(int)
    assert pixels[:, :24].min() > 240 and pixels[:, 40:, 2].max() < 30 and pixels[:, 40:, 0].min() > 225


def test_a_dead_pixel_does_not_count_by_percentile() -> None:
    values = cells(300, 3800)
    values[5, 5] = 65_535
    assert stored(tiff(values), "min-max").mean() < 16
    assert stored(tiff(values), "percentile").max() > 247


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-1.5, 2.5, 64 * 64).reshape(64, 64).astype(np.float32),
        np.arange(64 * 64, dtype=np.int32).reshape(64, 64) * 1000 - 5,
    ],
    ids=["float", "int32"],
)
def test_values_without_a_full_range_need_their_own(values: Values) -> None:
    with pytest.raises(DecodeError, match=r"ingest\.range") as raised:
        stored(tiff(values), "full")
    assert raised.value.reason == "unsupported_pixels"
    for range in ("min-max", "percentile"):
        found = stored(tiff(values), range)
        assert found.min() < 4 and found.max() > 251 and found[0, 0, 0] < found[-1, -1, 0]


def test_what_is_no_number_is_black() -> None:
    values = np.linspace(1, 2, 64 * 64).reshape(64, 64).astype(np.float32)
    values[20:40, 20:40] = np.nan
    values[50:, :] = np.inf
    found = stored(tiff(values), "min-max")
    assert found[24:36, 24:36].max() < 12 and found[54:].min() > 245


@pytest.mark.parametrize("range", ["min-max", "percentile"])
def test_one_shade_is_black(range: str) -> None:
    assert stored(tiff(np.full((64, 64), 700, np.uint16)), range).max() == 0


def test_eight_bits_are_left_alone() -> None:
    data = encoded(".png", np.full((64, 64), 40, np.uint8))
    assert stored(data, "min-max").mean() == stored(data, "full").mean() == 40


def test_an_unknown_range_is_refused() -> None:
    with pytest.raises(ValueError, match="full, min-max, percentile"):
        IngestSettings(range="auto")
