"""Random outlines, as polygons in a unit frame, and their rasters.

An outline is one closed polygon about the origin, reaching about 1 in its longest direction, with an optional
hole. `place` turns, stretches and moves it into an image; `raster` fills it. Nothing here knows of colours or
objects.

Shapes: N polygon points, 2 is (x, y), HW an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Outline:
    """A closed polygon and an optional hole in it.

    Attributes:
        points_N2: float[N, 2], (x, y).
        hole_M2: float[M, 2] or None; filled with background.
    """

    points_N2: Points
    hole_M2: Points | None = None


def ellipse(rng: np.random.Generator) -> Outline:
    """An ellipse to rounded rectangle (a superellipse), longest half-axis 1."""
    angle_N = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    power = rng.choice([1.0, 1.0, 0.6, 0.35])
    x_N, y_N = np.cos(angle_N), np.sin(angle_N)
    points_N2 = np.stack([np.sign(x_N) * np.abs(x_N) ** power, np.sign(y_N) * np.abs(y_N) ** power], axis=1)
    return Outline(points_N2 * [1.0, rng.uniform(0.4, 1.0)])


def blob(rng: np.random.Generator, roughness: float = 0.35) -> Outline:
    """A smooth closed curve: a circle whose radius is a short random Fourier series."""
    angle_N = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius_N = np.ones_like(angle_N)
    for k in range(2, 7):
        radius_N += roughness * rng.normal() / k * np.cos(k * angle_N + rng.uniform(0, 2 * np.pi))
    radius_N = np.clip(radius_N, 0.3, None)
    points_N2 = (
        np.stack([np.cos(angle_N), np.sin(angle_N) * rng.uniform(0.5, 1.0)], axis=1) * radius_N[:, None]
    )
    return Outline(points_N2 / np.abs(points_N2).max())


def polygon(rng: np.random.Generator) -> Outline:
    """A polygon of 3 to 7 corners, nearly regular or quite irregular."""
    corners = int(rng.integers(3, 8))
    step = 2 * np.pi / corners
    angle_N = np.arange(corners) * step + rng.uniform(-0.3, 0.3, corners) * step
    radius_N = rng.uniform(0.7, 1.0, corners)
    points_N2 = np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1) * radius_N[:, None]
    return Outline(points_N2 * [1.0, rng.uniform(0.6, 1.0)])


def star(rng: np.random.Generator) -> Outline:
    """A star of 4 to 9 points."""
    tips = int(rng.integers(4, 10))
    angle_N = np.arange(2 * tips) * np.pi / tips
    radius_N = np.where(np.arange(2 * tips) % 2 == 0, 1.0, rng.uniform(0.4, 0.75))
    return Outline(np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1) * radius_N[:, None])


def ribbon(rng: np.random.Generator) -> Outline:
    """A long bent strip, straight to strongly curved, of even or tapering width."""
    along_N = np.linspace(-1, 1, 24)
    bend, wave = rng.uniform(-0.5, 0.5), rng.uniform(-0.15, 0.15)
    centre_N2 = np.stack([along_N, bend * (1 - along_N**2) + wave * np.sin(4 * along_N)], axis=1)
    tangent_N2 = np.gradient(centre_N2, axis=0)
    normal_N2 = tangent_N2[:, ::-1] * [-1, 1] / np.linalg.norm(tangent_N2, axis=1, keepdims=True)
    half_N1 = rng.uniform(0.06, 0.2) * (1 + rng.uniform(-0.6, 0.6) * along_N)[:, None]
    return Outline(np.concatenate([centre_N2 + normal_N2 * half_N1, (centre_N2 - normal_N2 * half_N1)[::-1]]))


def ring(rng: np.random.Generator) -> Outline:
    """An ellipse with a hole."""
    outer = ellipse(rng).points_N2
    return Outline(outer, outer * rng.uniform(0.4, 0.7))


def crescent(rng: np.random.Generator) -> Outline:
    """A moon: one arc, and a flatter one back."""
    reach = rng.uniform(0.6, 1.0) * np.pi
    angle_N = np.linspace(-reach, reach, 40) / 2
    arc_N2 = np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)
    start_x, depth = arc_N2[0, 0], rng.uniform(0.1, 0.6)
    back_N2 = np.stack([start_x + (arc_N2[:, 0] - start_x) * depth, arc_N2[:, 1]], axis=1)[::-1]
    points_N2 = np.concatenate([arc_N2, back_N2])
    points_N2 = points_N2 - (points_N2.max(axis=0) + points_N2.min(axis=0)) / 2
    return Outline(points_N2 / np.abs(points_N2).max())


SHAPES: tuple[Callable[[np.random.Generator], Outline], ...] = (
    ellipse, ellipse, ellipse, blob, blob, blob, polygon, polygon, star, ribbon, ring, crescent,
)  # fmt: skip
SOLID_SHAPES: tuple[Callable[[np.random.Generator], Outline], ...] = (
    ellipse,
    ellipse,
    blob,
    blob,
    polygon,
    star,
)


def place(outline: Outline, centre_xy: Points, radius_px: float, angle_rad: float) -> Outline:
    """Turn, scale and move an outline.

    Args:
        outline: in the unit frame.
        centre_xy: float[2], pixels.
        radius_px: what 1 in the unit frame becomes.
        angle_rad: turn, from x towards y.

    Returns:
        The outline in pixels.
    """
    cos, sin = np.cos(angle_rad) * radius_px, np.sin(angle_rad) * radius_px
    matrix_22 = np.array([[cos, sin], [-sin, cos]])
    hole_M2 = None if outline.hole_M2 is None else outline.hole_M2 @ matrix_22 + centre_xy
    return Outline(outline.points_N2 @ matrix_22 + centre_xy, hole_M2)


def raster(outline: Outline, height: int, width: int) -> Mask:
    """Fill an outline given in pixels.

    Returns:
        bool[H, W]; what lies outside the image is cut off.
    """
    canvas = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(canvas)
    draw.polygon([(float(x), float(y)) for x, y in outline.points_N2], fill=1)
    if outline.hole_M2 is not None:
        draw.polygon([(float(x), float(y)) for x, y in outline.hole_M2], fill=0)
    return np.asarray(canvas).view(np.bool_).copy()
