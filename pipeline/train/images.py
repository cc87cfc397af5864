"""A training image from a picture and its masks: turned, scaled to the model's input, padded, normalised.

Masks that cannot teach are left out, and counted by reason: those of fewer pixels than `min_area_px`, those
of more of the picture than `max_share`, and those without a pixel at the model's size. An image with no mask
left gives None.

Shapes: N masks, H x W the picture, S the model's input.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.asked import TrainImage
from maskmill.pipeline.train.pictures import PIXEL_MEAN, PIXEL_STD
from maskmill.pipeline.train.views import other_look, part_of

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture with its masks.

    Attributes:
        key: of its sample.
        image: uint8[H, W, 3].
        masks_NHW: bool[N, H, W].
        quality_N: float[N], 0 to 1, of automatic masks; ignored for a person's.
        by_person_N: bool[N].
        complete: a person labelled everything that is to be found.
        crowd_HW: bool[H, W], pixels that count nowhere; None without any.
        right_N: float[N], the IoU with its object that an automatic mask is expected to have; None where
            nobody said. Ignored for a person's.
    """

    key: str
    image: NDArray[np.uint8]
    masks_NHW: Bools
    quality_N: NDArray[np.float32]
    by_person_N: Bools
    complete: bool = False
    crowd_HW: Bools | None = None
    right_N: NDArray[np.float32] | None = None


def teaching(area_px: int, size_px: int, settings: TrainSettings) -> str | None:
    """Why a mask of this area of a picture of this size is left out; None where it teaches."""
    if area_px < settings.min_area_px:
        return "empty" if area_px == 0 else "too_small"
    return "too_large" if area_px > settings.max_share * size_px else None


def train_image(
    given: Labelled,
    number: int,
    image_size: int,
    settings: TrainSettings,
    left_out: Counter[str] | None = None,
) -> TrainImage | None:
    """Makes a training image.

    Args:
        given: the picture.
        number: its place in the training's sequence; seeds how it is turned.
        image_size: side of the model's input, px.
        settings: the run's.
        left_out: counts masks left out by reason.

    Returns:
        The image; None where no mask is left.
    """
    counted = left_out if left_out is not None else Counter()
    keep = []
    for i, mask_HW in enumerate(given.masks_NHW):
        why = teaching(int(mask_HW.sum()), mask_HW.size, settings)
        if why is None:
            keep.append(i)
        else:
            counted[why] += 1

    # As it is shown, scaled
    rng = np.random.default_rng([settings.seed, number, 2])
    image, masks, crowd, keep = _shown(rng, given, keep, settings)
    height, width = _fitted(image.shape[:2], image_size)
    small = np.stack([_scaled(mask, height, width) for mask in masks]) if keep else masks
    seen = small.any(axis=(1, 2)) if keep else np.zeros(0, np.bool_)
    counted["vanishes"] += int((~seen).sum())
    if not seen.any():
        return None

    # What is still seen, by who made it
    places = np.asarray(keep)[seen]
    by_person_N = given.by_person_N[places]
    weight_N = np.where(by_person_N, 1.0, settings.automatic_weight * np.clip(given.quality_N[places], 0, 1))
    right_N = None
    if given.right_N is not None:
        right_N = np.where(by_person_N, 1.0, np.clip(given.right_N[places], 0, 1)).astype(np.float32)

    # On the padded square
    masks_NSS = np.zeros((len(places), image_size, image_size), np.bool_)
    masks_NSS[:, :height, :width] = small[seen]
    counts_SS = None
    if crowd is not None and crowd.any():
        counts_SS = np.ones((image_size, image_size), np.bool_)
        counts_SS[:height, :width] = ~_scaled(crowd, height, width)

    return TrainImage(
        number,
        _normalised(image, height, width, image_size),
        height,
        width,
        masks_NSS,
        weight_N.astype(np.float32),
        given.complete,
        counts_SS,
        right_N,
        by_person_N,
    )


def _shown(
    rng: np.random.Generator, given: Labelled, keep: list[int], settings: TrainSettings
) -> tuple[NDArray[np.uint8], Bools, Bools | None, list[int]]:
    """Turned at random, a part of it, in another look: picture, masks, crowd, and which masks are in view."""
    image, masks, crowd = given.image, given.masks_NHW[keep], given.crowd_HW
    turns = rng.random(3) < 0.5
    if rng.random() < settings.crops:
        rows, columns = part_of(rng, (image.shape[0], image.shape[1]))
        image, masks = image[rows, columns], masks[:, rows, columns]
        crowd = crowd[rows, columns] if crowd is not None else None
        in_view = masks.sum((1, 2)) >= settings.min_area_px
        masks, keep = masks[in_view], np.asarray(keep)[in_view].tolist()
    if rng.random() < settings.looks:
        image = other_look(rng, image)
    if settings.flips:
        image, masks = _turned(image, turns), np.stack([_turned(m, turns) for m in masks]) if keep else masks
        crowd = _turned(crowd, turns) if crowd is not None else None
    return image, masks, crowd, keep


def _fitted(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """As ResizeLongestSide: the longer side becomes the model's."""
    scale = image_size / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _normalised(image: NDArray[np.uint8], height: int, width: int, image_size: int) -> NDArray[np.float32]:
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    padded = np.zeros((3, image_size, image_size), np.float32)
    padded[:, :height, :width] = ((resized.astype(np.float32) - PIXEL_MEAN) / PIXEL_STD).transpose(2, 0, 1)
    return padded


def _scaled(mask_HW: Bools, height: int, width: int) -> Bools:
    """A mask at another size: pixels that it covers by half or more."""
    plane = Image.fromarray(mask_HW.astype(np.uint8) * 255)
    scaled: Bools = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) > 127
    return scaled


def _turned(plane: NDArray[Any], turns: NDArray[np.bool_]) -> NDArray[Any]:
    """Mirrored and transposed."""
    if turns[0]:
        plane = plane[:, ::-1]
    if turns[1]:
        plane = plane[::-1]
    if turns[2]:
        plane = plane.swapaxes(0, 1)
    return np.ascontiguousarray(plane)
