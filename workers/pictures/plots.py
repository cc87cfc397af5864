"""Curves and tables as PNG, drawn with Pillow alone: a few lines over two axes, a title, a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from maskmill.workers.pictures.render import INK, PAPER, SOFT_INK, mask_colours, png_bytes

WIDTH_PX, HEIGHT_PX = 720, 440
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 64, 200, 64, 52


@dataclass(frozen=True)
class Line:
    """A named curve; points with a NaN are left out."""

    name: str
    points: tuple[tuple[float, float], ...]

    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(x) and math.isfinite(y)]


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> bytes:
    """A PNG of 720 x 440 px.

    Args:
        title: above the chart.
        lines: with at least one finite point between them.
        x_label, y_label: what the axes count.
        y_range: of the y axis; None fits it to the points.

    Raises:
        ValueError: nothing to draw.
    """
    points = [point for line in lines for point in line.finite()]
    if not points:
        raise ValueError(f"chart {title!r} has no point to draw")
    xs, ys = _ticks([x for x, _ in points], None), _ticks([y for _, y in points], y_range)
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), PAPER)
    draw = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(12), ImageFont.load_default(16)
    draw.text((LEFT_PX, 14), title, fill=INK, font=large)

    def place(x: float, y: float) -> tuple[float, float]:
        """Where a point lies, in px."""
        wide, high = WIDTH_PX - LEFT_PX - RIGHT_PX, HEIGHT_PX - TOP_PX - BOTTOM_PX
        across = (x - xs[0]) / (xs[-1] - xs[0])
        up = (y - ys[0]) / (ys[-1] - ys[0])
        return LEFT_PX + across * wide, HEIGHT_PX - BOTTOM_PX - up * high

    for y in ys:
        left, row = place(xs[0], y)
        draw.line((left, row, place(xs[-1], y)[0], row), fill=(228, 231, 236))
        draw.text((left - 8, row), f"{y:g}", fill=SOFT_INK, font=small, anchor="rm")
    for x in xs:
        column, base = place(x, ys[0])
        draw.text((column, base + 6), f"{x:g}", fill=SOFT_INK, font=small, anchor="mt")
    draw.text((place(xs[0], ys[0])[0], HEIGHT_PX - 24), x_label, fill=SOFT_INK, font=small)
    draw.text((8, TOP_PX - 26), y_label, fill=SOFT_INK, font=small)
    for i, (line, colour) in enumerate(zip(lines, mask_colours(len(lines)).tolist(), strict=True)):
        shown = [place(x, y) for x, y in line.finite()]
        if len(shown) > 1:
            draw.line(shown, fill=tuple(colour), width=3)
        for x, y in shown:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=tuple(colour))
        row = TOP_PX + 8 + 20 * i
        draw.rectangle(
            (WIDTH_PX - RIGHT_PX + 16, row, WIDTH_PX - RIGHT_PX + 28, row + 10), fill=tuple(colour)
        )
        draw.text((WIDTH_PX - RIGHT_PX + 34, row - 2), line.name[:24], fill=INK, font=small)
    return png_bytes(image)


def _ticks(values: Sequence[float], fixed: tuple[float, float] | None) -> list[float]:
    """Round values that enclose these: at least two."""
    low, high = fixed or (min(values), max(values))
    span = (high - low) or max(abs(high), 1.0) * 0.1
    step = 10 ** math.floor(math.log10(span))
    for factor in (0.1, 0.2, 0.5, 1.0, 2.0):
        if span / (step * factor) <= 6:
            step *= factor
            break
    if all(value == int(value) for value in values):
        step = max(step, 1.0)  # rounds and clicks come whole
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(k * step, 12) for k in range(first, last + 1)]
