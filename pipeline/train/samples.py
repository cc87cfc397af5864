"""Training samples: a padded picture, its masks at low resolution and its first prompts.

`sample` depends on nothing but its number: the same number and settings give the same sample, so a resumed
run goes on where it stopped and two processes share the work by parity. Two numbers in a row share one
generated scene, turned and prompted differently: drawing a scene costs more than turning it.

Shapes: N masks, S the padded side, S/2 the low-resolution side, P prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.scenes.photo_regions import RegionPhoto, load_region_photos, region_scene
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED, Scene, generate_scene
from maskmill.pipeline.train.prompts import Prompts, first_prompts

PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
PIXEL_STD = np.array([58.395, 57.12, 57.375], np.float32)


@dataclass(frozen=True)
class SampleConfig:
    """What samples look like.

    Attributes:
        size: side of the padded picture, pixels; even.
        prompts: first prompts a picture.
        photo_share: share of samples cut from photographs rather than generated.
        min_area: the least share of the picture a generated mask covers.
        void_share: share of the prompts that are points on a painted background, where no mask is right.
    """

    size: int = 256
    prompts: int = 16
    photo_share: float = 0.25
    min_area: float = 0.0015
    void_share: float = 0.07

    def __post_init__(self) -> None:
        if self.size < 64 or self.size % 32:
            raise ValueError(f"sample size {self.size}: use a multiple of 32, at least 64")
        if self.prompts < 1 or not 0 <= self.photo_share <= 1:
            raise ValueError(
                f"prompts {self.prompts}, photo_share {self.photo_share}: use 1 or more, and 0 to 1"
            )


@dataclass(frozen=True)
class Sample:
    """One training picture.

    Attributes:
        image_3SS: float32[3, S, S], normalised and padded with zeros, as `Sam.preprocess` does.
        targets_Nss: float32[N, S/2, S/2], the share of each cell that each mask covers.
        prompts: the first prompts.
        under_PN: bool[P, N], the masks under each point prompt; all False for boxes.
    """

    image_3SS: NDArray[np.float32]
    targets_Nss: NDArray[np.float32]
    prompts: Prompts
    under_PN: NDArray[np.bool_]


@lru_cache(maxsize=1)
def _photos() -> list[RegionPhoto]:
    return load_region_photos()


@lru_cache(maxsize=8)
def _generated(seed: int, height: int, width: int, min_area: float) -> Scene:
    return generate_scene(seed, (height, width), min_area=min_area)


def sample(number: int, config: SampleConfig) -> Sample:
    """Make a training sample.

    Args:
        number: at least 0.
        config: size, prompts and mixture.

    Returns:
        The sample; its picture holds at least one mask.
    """
    pair = np.random.default_rng([number // 2, 17])  # the same for two numbers in a row
    own = np.random.default_rng([number, 23])
    height = width = config.size
    if pair.random() < 0.3:
        short = int(config.size * pair.uniform(0.6, 1.0))
        height, width = (short, width) if pair.random() < 0.5 else (height, short)
    from_photo, seed = pair.random() < config.photo_share, int(pair.integers(HELD_BACK_SEED))
    for attempt in range(20):
        if from_photo:
            source = _photos()[int(own.integers(len(_photos())))]
            scene = region_scene(own, source, height, width)
        else:
            scene = _generated((seed + attempt) % HELD_BACK_SEED, height, width, config.min_area)
        if len(scene.masks_NHW):
            break
    else:
        raise RuntimeError(
            f"sample {number}: twenty pictures in a row hold no mask; lower min_area ({config.min_area})"
        )
    return _assemble(own, scene, config)


def _assemble(rng: np.random.Generator, scene: Scene, config: SampleConfig) -> Sample:
    image, masks = _turn(rng, scene.image, scene.masks_NHW)
    void_share = 0.0 if scene.photo_background else config.void_share
    prompts = first_prompts(rng, masks, config.prompts, void_share=void_share)
    x, y = prompts.coords_PT2[:, 0].astype(int).T
    under_PN = masks[:, y, x].T & ~prompts.is_box_P[:, None]
    size, (height, width) = config.size, image.shape[:2]
    padded = np.zeros((3, size, size), np.float32)
    padded[:, :height, :width] = ((image.astype(np.float32) - PIXEL_MEAN) / PIXEL_STD).transpose(2, 0, 1)
    full = np.zeros((len(masks), size, size), np.uint8)
    full[:, :height, :width] = masks
    cells = full[:, ::2, ::2] + full[:, 1::2, ::2] + full[:, ::2, 1::2] + full[:, 1::2, 1::2]
    return Sample(padded, cells.astype(np.float32) / np.float32(4), prompts, under_PN)


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
    return np.ascontiguousarray(image), np.ascontiguousarray(masks)
