"""What the recipe asks of an image: which of its masks, by which first prompts, in which rounds.

An automatic mask may be kept from points where others lie too (`ambiguous` off): there a point may mean any
of them, and the mask was only one guess. A mask that lies nowhere alone is asked for by its box.

Everything is drawn from a generator of the image's own number.

Shapes: P masks trained, T = 2 tokens a prompt, N masks of the image, S the side of the model's input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.prompts import BOX_END, BOX_START, FOREGROUND, PAD, noised_box, random_point


@dataclass(frozen=True, eq=False)
class TrainImage:
    """An image with the masks it is trained on, turned and padded to the model's input.

    Attributes:
        number: its place in the training's sequence; seeds everything drawn for it.
        image_3SS: float32[3, S, S], normalised and padded with zeros, as `Sam.preprocess` does.
        height, width: of its part that is not padding, px.
        masks_NSS: bool[N, S, S], none empty; at least one.
        weight_N: float32[N], of their losses: a person's 1, an automatic one's by its quality.
        complete: a person labelled everything that is to be found.
        counts_SS: bool[S, S], pixels that count: not those of crowds. None where all do.
        right_N: float32[N], the IoU with its object that each mask itself is expected to have; a person's 1.
            None where all have 1.
        by_person_N: bool[N]. None where all are by people.
    """

    number: int
    image_3SS: NDArray[np.float32]
    height: int
    width: int
    masks_NSS: NDArray[np.bool_]
    weight_N: NDArray[np.float32]
    complete: bool
    counts_SS: NDArray[np.bool_] | None = None
    right_N: NDArray[np.float32] | None = None
    by_person_N: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class FirstPrompts:
    """What round 1 asks: two tokens a mask.

    Attributes:
        target_P: int64[P], places among the image's masks.
        coords_PT2: float32[P, 2, 2], x, y in px of the padded input.
        labels_PT: int64[P, 2].
    """

    target_P: NDArray[np.int64]
    coords_PT2: NDArray[np.float32]
    labels_PT: NDArray[np.int64]


def first_prompts(rng: np.random.Generator, image: TrainImage, settings: TrainSettings) -> FirstPrompts:
    """Draws up to `masks` of an image's masks, the better ones likelier, and a point or box of each."""
    count = min(settings.masks, len(image.masks_NSS))
    chance = image.weight_N.astype(np.float64) + 1e-6
    target_P = rng.choice(len(image.masks_NSS), count, replace=False, p=chance / chance.sum())
    coords, labels = np.zeros((count, 2, 2), np.float32), np.full((count, 2), PAD, np.int64)
    for i, target in enumerate(target_P):
        mask_SS = image.masks_NSS[target]
        by_box = rng.random() < settings.box_share
        if not by_box and not settings.ambiguous:
            mask_SS = _unambiguous(image, int(target))
            by_box = not mask_SS.any()
        if by_box:
            inside = image.masks_NSS[target, : image.height, : image.width]
            coords[i] = np.reshape(noised_box(rng, inside), (2, 2))
            labels[i] = BOX_START, BOX_END
        else:
            coords[i, 0], labels[i, 0] = random_point(rng, mask_SS), FOREGROUND
    return FirstPrompts(target_P.astype(np.int64), coords, labels)


def _unambiguous(image: TrainImage, target: int) -> NDArray[np.bool_]:
    """bool[S, S], where a point means one mask: a person's own, of an automatic one where no other lies."""
    mask_SS: NDArray[np.bool_] = image.masks_NSS[target]
    if image.by_person_N is None or image.by_person_N[target]:
        return mask_SS
    alone_SS: NDArray[np.bool_] = mask_SS & (image.masks_NSS.sum(0) == 1)
    return alone_SS


def rounds_of(rng: np.random.Generator, settings: TrainSettings) -> list[bool]:
    """Whether each round after the first brings a point: SAM's eight points and two bare rounds."""
    kinds = [True] * settings.points
    for _ in range(settings.bare_rounds - 1):
        kinds.insert(int(rng.integers(len(kinds) + 1)), False)
    return kinds + [False] * min(1, settings.bare_rounds)
