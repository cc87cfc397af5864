"""Bottom-up regions of real photographs, as training scenes with real boundaries.

Felzenszwalb's graph segmentation at three scales gives a coarse, a middle and a fine partition of each
photograph that ships in scikit-image's package; regions whose border lies on weak edges are dropped.
`region_scene` cuts a random window from one, with flips and colour changes. The regions aren't objects:
they teach where real edges are, and that's all.

Shapes: L scales (coarse first), N masks, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.segmentation import felzenszwalb, find_boundaries

from maskmill.pipeline.scenes.scenes import Scene
from maskmill.pipeline.scenes.textures import photo

PHOTO_NAMES = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "ihc.png", "coins.png",
    "camera.png", "hubble_deep_field.jpg", "retina.jpg", "gravel.png", "brick.png",
)  # fmt: skip
SCALES = (900.0, 250.0, 70.0)
LEAST_EDGE = 0.035  # mean gradient magnitude along a region's border, of the strongest channel in 0..1
MAX_MASKS = 40


@dataclass(frozen=True)
class RegionPhoto:
    """A photograph and its partitions.

    Attributes:
        image: uint8[H, W, 3], RGB.
        labels_LHW: int32[L, H, W], 1 and up for regions worth keeping, 0 elsewhere.
    """

    image: NDArray[np.uint8]
    labels_LHW: NDArray[np.int32]


def photo_regions(image: NDArray[np.uint8]) -> RegionPhoto:
    """Partition a photograph at three scales and drop weakly bounded regions.

    Args:
        image: uint8[H, W, 3], RGB; a second or so at 512 px.

    Returns:
        The photograph with its label maps.
    """
    edges_HW = np.max(
        [ndimage.gaussian_gradient_magnitude(c / 255.0, 1.0) for c in image.transpose(2, 0, 1)], axis=0
    )
    maps = []
    for scale in SCALES:
        least_px = max(20, round(scale * 0.35))
        labels_HW = felzenszwalb(image, scale=scale, sigma=0.8, min_size=least_px).astype(np.int32) + 1
        border_HW = find_boundaries(labels_HW, mode="inner")  # type: ignore[no-untyped-call]
        at = labels_HW[border_HW]
        total = np.bincount(at, weights=edges_HW[border_HW], minlength=labels_HW.max() + 1)
        mean = total / np.maximum(np.bincount(at, minlength=labels_HW.max() + 1), 1)
        maps.append(np.where((mean >= LEAST_EDGE)[labels_HW], labels_HW, 0).astype(np.int32))
    return RegionPhoto(image, np.stack(maps))


def load_region_photos() -> list[RegionPhoto]:
    """Partition the photographs of scikit-image's package that have usable edges (about ten seconds)."""
    return [photo_regions(photo(name, long_side_px=480)) for name in PHOTO_NAMES]


def region_scene(
    rng: np.random.Generator, source: RegionPhoto, height: int, width: int, min_area: float = 0.003
) -> Scene:
    """Cut a random window, flip and tint it, and make masks of the regions in it.

    Args:
        rng: consumed.
        source: a partitioned photograph.
        height: of the result, pixels.
        width: of the result, pixels.
        min_area: the least share of the window a mask covers.

    Returns:
        A scene whose level is the scale (0 coarse, 1 middle, 2 fine), at most 40 masks; parents are not
        known (-1).
    """
    full_h, full_w = source.image.shape[:2]
    zoom = min(full_h / height, full_w / width) * rng.uniform(0.4, 1.0)
    cut_h, cut_w = int(height * zoom), int(width * zoom)
    top, left = int(rng.integers(full_h - cut_h + 1)), int(rng.integers(full_w - cut_w + 1))
    window = (slice(top, top + cut_h), slice(left, left + cut_w))
    cut = np.ascontiguousarray(source.image[window])
    image = np.asarray(Image.fromarray(cut).resize((width, height), Image.Resampling.BILINEAR))
    rows = np.minimum(((np.arange(height) + 0.5) * cut_h / height).astype(int), cut_h - 1)
    cols = np.minimum(((np.arange(width) + 0.5) * cut_w / width).astype(int), cut_w - 1)
    labels_LHW = source.labels_LHW[(slice(None), *window)][:, rows][:, :, cols]
    masks, level = _masks_of(rng, labels_LHW, min_area)
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return Scene(
        _tint(rng, image), np.ascontiguousarray(masks), level, np.full(len(level), -1, np.int64), True
    )


def _masks_of(
    rng: np.random.Generator, labels_LHW: NDArray[np.int32], min_area: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Regions large enough, as masks; a region that several scales agree on is taken once."""
    size_px = labels_LHW[0].size
    found: list[tuple[int, int]] = []
    for level, labels_HW in enumerate(labels_LHW):
        area_px = np.bincount(labels_HW.ravel())
        area_px[0] = 0
        large = (area_px >= min_area * size_px) & (area_px < 0.8 * size_px)
        found += [(level, int(label)) for label in np.flatnonzero(large)]

    # In random order, each shape once
    masks: list[NDArray[np.bool_]] = []
    levels: list[int] = []
    seen: set[bytes] = set()
    for i in rng.permutation(len(found))[: 2 * MAX_MASKS]:
        level, label = found[i]
        mask_HW = labels_LHW[level] == label
        coarse = np.packbits(mask_HW[::8, ::8]).tobytes()
        if coarse not in seen and len(masks) < MAX_MASKS and _is_thick(mask_HW):
            seen.add(coarse)
            masks.append(mask_HW)
            levels.append(level)

    stacked = np.stack(masks) if masks else np.zeros((0, *labels_LHW.shape[1:]), np.bool_)
    return stacked, np.array(levels, dtype=np.int64)


def _is_thick(mask_HW: NDArray[np.bool_]) -> bool:
    """Is at least a third of the mask two pixels or more away from its border?"""
    inner = (
        mask_HW[2:-2, 2:-2] & mask_HW[:-4, 2:-2] & mask_HW[4:, 2:-2] & mask_HW[2:-2, :-4] & mask_HW[2:-2, 4:]
    )
    return bool(3 * inner.sum() >= mask_HW.sum())


def _tint(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Change gain, offset and gamma by channel a little, and sometimes mix or drop the colours."""
    pixels: NDArray[np.floating] = image.astype(np.float32)
    pixels = 255 * (pixels / 255) ** np.float32(np.exp(rng.normal(0, 0.25)))
    pixels = pixels * rng.uniform(0.75, 1.25, 3).astype(np.float32) + rng.normal(0, 10, 3).astype(np.float32)
    kind = rng.random()
    if kind < 0.2:
        pixels = pixels[:, :, rng.permutation(3)]
    elif kind < 0.3:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True, dtype=np.float32), 3, axis=2)
    if rng.random() < 0.3:
        pixels = pixels + rng.normal(0, rng.uniform(1, 8), pixels.shape).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)
