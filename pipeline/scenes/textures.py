"""Colours and surface textures for generated scenes.

A plane is float32[H, W] of mean about 0 and deviation about 1 that modulates a colour; a photo patch is a
cut of one of the photographs that scikit-image ships in its package (nothing is ever downloaded)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]

# Photographs inside the scikit-image wheel: colour scenes, microscopy and plain surfaces.
PHOTO_NAMES = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
    "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "camera.png", "coins.png", "brick.png", "grass.png",
    "gravel.png", "moon.png",
)  # fmt: skip


@lru_cache(maxsize=64)
def photo(name: str, long_side_px: int = 512) -> NDArray[np.uint8]:
    """A photograph of scikit-image's package, reduced.

    Returns:
        uint8[H, W, 3], RGB, read-only; its long side is at most `long_side_px`.

    Raises:
        ValueError: the installed scikit-image does not ship that file.
    """
    path = Path(skimage.data.__file__).parent / name
    if not path.is_file():
        raise ValueError(
            f"scikit-image's package has no {name}; install scikit-image 0.22 to 0.26 from a wheel"
        )
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    rgb.thumbnail((long_side_px, long_side_px), Image.Resampling.BICUBIC)
    pixels_HW3 = np.asarray(rgb)
    pixels_HW3.flags.writeable = False
    return pixels_HW3


def resize_plane(plane_HW: Plane, height: int, width: int) -> Plane:
    """Bicubic resize of one float32 plane."""
    resized = Image.fromarray(plane_HW).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)


def noise(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Noise of one to four octaves, from clouds to grain."""
    plane_HW = np.zeros((height, width), np.float32)
    cells = int(rng.integers(2, 24))
    for octave in range(int(rng.integers(1, 5))):
        rows, cols = min(height, cells * 2**octave), min(width, cells * 2**octave)
        grid = rng.standard_normal((rows, cols), dtype=np.float32)
        plane_HW += resize_plane(grid, height, width) * 0.6**octave
    return plane_HW


def stripes(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Straight or slightly bent stripes, soft or hard; sometimes crossed into checks."""
    y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    angle, count = rng.uniform(0, np.pi), rng.uniform(6, 45)
    bend = rng.uniform(-0.3, 0.3)
    phase_HW = (np.cos(angle) * x_HW + np.sin(angle) * y_HW + bend * x_HW * y_HW) * (2 * np.pi * count)
    wave_HW = np.sin(phase_HW)
    if rng.random() < 0.3:
        across_HW = (np.cos(angle) * y_HW - np.sin(angle) * x_HW) * (2 * np.pi * count)
        wave_HW = wave_HW * np.sin(across_HW)
    hardness = np.float32(rng.choice([1.0, 4.0]))
    return np.asarray(np.clip(wave_HW * hardness, -1, 1) * np.float32(1.2), dtype=np.float32)


def photo_plane(rng: np.random.Generator, height: int, width: int) -> Plane:
    """The lightness of a photo patch, mean 0 and deviation 1."""
    plane_HW = photo_patch(rng, height, width).mean(axis=2, dtype=np.float32)
    plane_HW -= plane_HW.mean()
    return np.asarray(plane_HW / (plane_HW.std() + 8), dtype=np.float32)


def photo_patch(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """A random cut of a random photograph, flipped at random and resized.

    Returns:
        uint8[height, width, 3].
    """
    source = photo(str(rng.choice(PHOTO_NAMES)))
    side = int(rng.uniform(0.2, 0.9) * min(source.shape[:2]))
    top, left = int(rng.integers(source.shape[0] - side)), int(rng.integers(source.shape[1] - side))
    patch = source[top : top + side, left : left + side]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    resized = Image.fromarray(np.ascontiguousarray(patch)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def plane(rng: np.random.Generator, height: int, width: int) -> Plane:
    """A random texture plane."""
    kind = rng.random()
    if kind < 0.55:
        return noise(rng, height, width)
    return stripes(rng, height, width) if kind < 0.75 else photo_plane(rng, height, width)


def colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """A random colour, float32[3] in 0..255; greys and dull colours are as common as in photographs."""
    value = 255 * rng.uniform(0.08, 1.0)
    saturation = rng.beta(1.2, 1.6)
    hue_3 = 0.5 + 0.5 * np.cos(2 * np.pi * (rng.random() + np.array([0, 1, 2]) / 3))
    return np.asarray(value * (1 - saturation * (1 - hue_3)), dtype=np.float32)


def colour_unlike(
    rng: np.random.Generator,
    other_3: NDArray[np.float32],
    least: float,
    like_3: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """A random colour at least `least` (Euclidean, 0..441) away from another, near `like_3` if given."""
    best_3, best_distance = other_3, -1.0
    for _ in range(8):
        candidate_3 = colour(rng)
        if like_3 is not None:
            candidate_3 = np.clip(like_3 + 0.35 * (candidate_3 - like_3), 0, 255)
        distance = float(np.linalg.norm(candidate_3 - other_3))
        if distance >= least:
            return candidate_3
        if distance > best_distance:
            best_3, best_distance = candidate_3, distance
    return best_3
