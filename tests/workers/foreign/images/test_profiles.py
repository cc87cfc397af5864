"""A colour profile is judged by what it does, not by what it is called."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from maskmill.workers.foreign.images import profiles
from maskmill.workers.foreign.images.codec import normalise
from maskmill.workers.run.ingest_settings import IngestSettings

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def renamed(profile: bytes, name: bytes) -> bytes:
    """A profile whose description (UTF-16 or ASCII, "sRGB built-in") is another, of the same length."""
    wide = "sRGB built-in".encode("utf-16-be")
    assert wide in profile
    return profile.replace(wide, name.decode().ljust(13).encode("utf-16-be"))


def with_gamma(profile: bytes, *, gamma: float) -> bytes:
    """The same primaries with another curve: parametric type 0, a power alone."""
    start = profile.index(b"para\0\0\0\0\0\x03")
    curve = b"para\0\0\0\0\0\0\0\0" + int(gamma * 65_536).to_bytes(4, "big")
    return profile[:start] + curve + profile[start + len(curve) :]


def photo(profile: bytes, mode: str = "RGB", format: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format, icc_profile=profile, quality=95)
    return buffer.getvalue()


def test_srgb_under_another_name_stays_byte_for_byte() -> None:
    profile = renamed(SRGB, b"c2")
    assert profiles.effect_of(profile, "RGB") == "none"
    data = photo(profile)
    assert normalise(data, IngestSettings()).jpeg == data
    assert normalise(data, IngestSettings(rules=1)).converted == "icc"  # by its name, as before


def test_another_curve_under_the_name_of_srgb_is_applied() -> None:
    profile = with_gamma(SRGB, gamma=1.0)
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    data = photo(profile)
    found = normalise(data, IngestSettings())
    assert found.converted == "icc" and profiles.effect_of(profile, "RGB") == "converts"
    plain = normalise(photo(SRGB), IngestSettings())
    assert found.pixels_HWC.mean() > plain.pixels_HWC.mean() + 20  # linear light is shown brighter
    assert normalise(data, IngestSettings(rules=1)).jpeg == data


@pytest.mark.parametrize("gamma", [1.8, 2.6])
def test_a_stronger_curve_counts_and_a_rounding_does_not(gamma: float) -> None:
    assert profiles.effect_of(with_gamma(SRGB, gamma=gamma), "RGB") == "converts"
    assert profiles.effect_of(SRGB, "RGB") == "none"


@pytest.mark.parametrize("profile", [b"", b"no profile", SRGB[:200], bytes(300)])
def test_bytes_that_are_no_profile_are_dropped(profile: bytes) -> None:
    assert profiles.effect_of(profile, "RGB") == "unusable"
    if profile:
        assert normalise(photo(profile, format="PNG"), IngestSettings()).converted == "png+icc_dropped"


def test_a_colour_profile_on_grey_does_not_fit() -> None:
    assert normalise(photo(SRGB, mode="L"), IngestSettings()).converted == "icc_dropped"


def test_a_profile_is_looked_at_once() -> None:
    profiles.effect_of.cache_clear()
    for _ in range(5):
        normalise(photo(SRGB), IngestSettings())
    assert profiles.effect_of.cache_info().misses == 1 and profiles.effect_of.cache_info().hits == 4
