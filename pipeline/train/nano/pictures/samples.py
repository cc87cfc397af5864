"""Generated scenes as training pictures.

`scene_sample` depends on nothing but its number: the same number and settings give the same picture, so a
resumed run goes on where it stopped and processes share the work by number. Two numbers in a row share one
generated scene, turned differently: drawing a scene costs more than turning it.

Shapes: N masks, H x W the scene, S the padded side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED, Scene, generate_scene
from maskmill.pipeline.train.pictures import Pictures, cells_of

MOST_MASKS = 40


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like.

    Attributes:
        side: of the padded picture, pixels.
        min_area: the least share of the picture a mask covers.
    """

    side: int = 256
    min_area: float = 0.0015

    def __post_init__(self) -> None:
        if self.side < 64 or self.side % 32:
            raise ValueError(f"sample side {self.side}: use a multiple of 32, at least 64")


@lru_cache(maxsize=8)
def _generated(seed: int, height: int, width: int, min_area: float) -> Scene:
    return generate_scene(seed, (height, width), min_area=min_area)


def scene_sample(number: int, config: SceneConfig) -> Pictures:
    """Make a training picture.

    Args:
        number: at least 0.
        config: its size.

    Returns:
        A batch of one, on the CPU; it holds at least one mask.

    Raises:
        RuntimeError: twenty scenes in a row without a mask.
    """
    pair = np.random.default_rng([number // 2, 17])  # the same for two numbers in a row
    own = np.random.default_rng([number, 23])
    height = width = config.side
    if pair.random() < 0.3:
        short = int(config.side * pair.uniform(0.6, 1.0))
        height, width = (short, width) if pair.random() < 0.5 else (height, short)
    seed = int(pair.integers(HELD_BACK_SEED))
    for attempt in range(20):
        scene = _generated((seed + attempt) % HELD_BACK_SEED, height, width, config.min_area)
        made = _padded(own, scene, config.side)
        if made.cells_BNss.shape[1]:
            return made
    raise RuntimeError(
        f"sample {number}: twenty pictures in a row hold no mask; lower min_area ({config.min_area})"
    )


def _padded(rng: np.random.Generator, scene: Scene, side: int) -> Pictures:
    """A scene turned, padded and brought to cells; masks that cover no cell are left out."""
    image, masks = _turn(rng, scene.image, scene.masks_NHW)
    masks = masks[rng.permutation(len(masks))[:MOST_MASKS]]
    height, width = image.shape[:2]
    margin = (0, side - width, 0, side - height)
    image_3SS = F.pad(torch.from_numpy(image).permute(2, 0, 1), margin)
    cells_Nss = cells_of(F.pad(torch.from_numpy(masks.astype(np.uint8)), margin))
    cells_Nss = cells_Nss[(cells_Nss > 2).flatten(1).any(1)]
    return Pictures(
        image_3SS[None],
        torch.tensor([[height, width]]),
        cells_Nss[None],
        torch.tensor([not scene.photo_background]),
    )


def _turn(
    rng: np.random.Generator, image: NDArray[np.uint8], masks: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Flip and transpose at random."""
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    if rng.random() < 0.5:
        image, masks = image[::-1], masks[:, ::-1]
    if rng.random() < 0.5:
        image, masks = image.transpose(1, 0, 2), masks.transpose(0, 2, 1)
    return image.copy(), masks.copy()
