"""Bottom-up regions of real photographs, as training scenes with real boundaries.

Felzenszwalb's graph segmentation at three scales gives a coarse, a middle and a fine partition of each
photograph that ships in scikit-image's package; regions whose border lies on weak edges are dropped. The
regions aren't objects: they teach where real edges are, and that's all.

Shapes: L scales (coarse first), H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import felzenszwalb, find_boundaries

from maskmill.pipeline.scenes.textures import photo

PHOTO_NAMES = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "ihc.png", "coins.png",
    "camera.png", "hubble_deep_field.jpg", "retina.jpg", "gravel.png", "brick.png",
)  # fmt: skip
SCALES = (900.0, 250.0, 70.0)
LEAST_EDGE = 0.035  # mean gradient magnitude along a region's border, of the strongest channel in 0..1


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
