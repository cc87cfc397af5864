"""SVG paths cover what their masks cover."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from maskmill.pipeline.annotation import Annotation
from maskmill.pipeline.rle import encode_mask
from maskmill.workers.pictures.mask_paths import UNITS_PER_PX, mask_path


def _annotation(mask_HW: NDArray[np.bool_]) -> Annotation:
    return Annotation(
        encode_mask(mask_HW), (0, 0, 1, 1), int(mask_HW.sum()), 0.9, 0.9, (0, 0, 1, 1), ((0, 0),)
    )


def _rings(path: str) -> list[list[tuple[int, int]]]:
    rings = []
    for part in re.findall(r"M[^Mz]*z", path):
        start, steps = part[1:-1].split("l")
        numbers = [int(n) for n in re.findall(r"-?\d+", start + " " + steps.replace("-", " -"))]
        x, y = numbers[0], numbers[1]
        ring = [(x, y)]
        for dx, dy in zip(numbers[2::2], numbers[3::2], strict=True):
            x, y = x + dx, y + dy
            ring.append((x, y))
        rings.append(ring)
    return rings


def _filled(path: str, height: int, width: int) -> NDArray[np.bool_]:
    """The path's inside by the even-odd rule, drawn in path units."""
    inside = np.zeros((height * UNITS_PER_PX, width * UNITS_PER_PX), dtype=bool)
    for ring in _rings(path):
        layer = Image.new("1", (width * UNITS_PER_PX, height * UNITS_PER_PX))
        ImageDraw.Draw(layer).polygon(ring, fill=1)
        inside ^= np.asarray(layer)
    return inside


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_disc_with_a_hole_and_a_far_island_is_drawn_within_its_outline(scale: float) -> None:
    y, x = np.mgrid[:120, :160]
    radius = np.hypot(x - 60, y - 60)
    mask_HW = ((radius < 45) & (radius > 15)) | ((x > 130) & (x < 150) & (y > 90) & (y < 110))
    height, width = int(120 * scale), int(160 * scale)
    wanted = np.asarray(
        Image.fromarray(mask_HW).resize(
            (width * UNITS_PER_PX, height * UNITS_PER_PX), Image.Resampling.NEAREST
        )
    )
    path = mask_path(_annotation(mask_HW), scale)
    drawn = _filled(path, height, width)
    assert len(_rings(path)) == 3
    assert (drawn & wanted).sum() / (drawn | wanted).sum() > 0.93


def test_a_thread_thinner_than_a_shown_pixel_is_still_drawn() -> None:
    mask_HW = np.zeros((200, 200), dtype=bool)
    mask_HW[100, 20:180] = True
    assert mask_path(_annotation(mask_HW), 0.25)


def test_the_whole_image_and_no_pixel() -> None:
    full = mask_path(_annotation(np.ones((40, 60), dtype=bool)), 1.0)
    assert _filled(full, 40, 60).mean() > 0.95
    assert mask_path(_annotation(np.zeros((40, 60), dtype=bool)), 1.0) == ""


def test_paths_are_small() -> None:
    y, x = np.mgrid[:600, :800]
    disc_HW = np.hypot(x - 400, y - 300) < 200
    assert len(mask_path(_annotation(disc_HW), 0.9)) < 600
