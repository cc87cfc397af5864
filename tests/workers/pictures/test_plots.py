"""Charts: every line is drawn in its own colour, within its axes, and nothing to draw is an error."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from maskmill.workers.pictures.plots import HEIGHT_PX, WIDTH_PX, Line, line_chart


def drawn(*lines: Line, **options: tuple[float, float]) -> np.ndarray:
    png = line_chart("loss", lines, x_label="step", y_label="loss", **options)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_lines_are_drawn_apart_on_a_page_of_its_size() -> None:
    one = drawn(Line("a", ((0, 0), (10, 1))))
    both = drawn(Line("a", ((0, 0), (10, 1))), Line("b", ((0, 1), (10, 0))))
    assert one.shape == both.shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert (one != both).any(axis=2).sum() > 300


def test_points_that_are_no_numbers_are_passed_over() -> None:
    plain = ((0.0, 0.0), (5.0, 0.5), (10.0, 1.0))
    broken = (plain[0], (3.0, math.nan), plain[1], (7.0, math.inf), plain[2])
    assert Line("a", broken).finite() == list(plain)
    assert (drawn(Line("a", plain)) == drawn(Line("a", broken))).all()


def test_one_point_and_a_flat_line_can_be_drawn() -> None:
    drawn(Line("a", ((1, 1),)))
    drawn(Line("a", ((0, 2), (1, 2))), y_range=(0, 4))


def test_nothing_to_draw_is_an_error_that_names_the_chart() -> None:
    with pytest.raises(ValueError, match="chart 'loss' has no point to draw"):
        drawn(Line("a", ((0, math.nan),)))
