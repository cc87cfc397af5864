"""Which masks are asked for, and where a point may lie."""

from __future__ import annotations

import numpy as np
import pytest

from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.asked import TrainImage, first_prompts
from maskmill.pipeline.train.prompts import BOX_START, FOREGROUND

PLAIN = TrainSettings(masks=3, box_share=0.0)
ALONE = TrainSettings(masks=3, box_share=0.0, ambiguous=False)


def nested(*, by_person: bool = False) -> TrainImage:
    """Mask 0 holds 1, which holds no pixel of its own: 2 lies on all of it."""
    masks = np.zeros((3, 32, 32), np.bool_)
    masks[0, 4:28, 4:28] = masks[1, 8:20, 8:20] = masks[2, 8:20, 8:20] = True
    return TrainImage(
        0,
        np.zeros((3, 32, 32), np.float32),
        32,
        32,
        masks,
        np.ones(3, np.float32),
        False,
        by_person_N=np.full(3, by_person),
    )


def points_of(image: TrainImage, settings: TrainSettings) -> dict[int, list[tuple[int, int]]]:
    """Mask -> the points that it was asked for by, over many draws; boxes left out."""
    found: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
    for seed in range(60):
        asked = first_prompts(np.random.default_rng(seed), image, settings)
        for target, xy, label in zip(
            asked.target_P, asked.coords_PT2[:, 0], asked.labels_PT[:, 0], strict=True
        ):
            if label == FOREGROUND:
                found[int(target)].append((int(xy[0]), int(xy[1])))
    return found


def test_a_point_where_several_masks_lie_is_asked_only_where_that_is_allowed() -> None:
    image = nested()
    deep = lambda points: [p for p in points if image.masks_NSS[:, p[1], p[0]].sum() > 1]  # noqa: E731
    assert deep(points_of(image, PLAIN)[0]), "SAM's recipe draws there too"
    alone = points_of(image, ALONE)
    assert len(alone[0]) == 60 and not deep(alone[0])
    assert not alone[1] and not alone[2], "a mask that lies nowhere alone is asked for by its box"


def test_a_box_in_a_point_s_place_is_the_mask_s_own() -> None:
    image = nested()
    asked = first_prompts(np.random.default_rng(0), image, ALONE)
    boxes = asked.coords_PT2[asked.labels_PT[:, 0] == BOX_START]
    assert len(boxes) == 2 and np.abs(boxes - [[8, 8], [19, 19]]).max() < 6


@pytest.mark.parametrize("settings", [PLAIN, ALONE])
def test_a_person_s_mask_is_asked_for_anywhere(settings: TrainSettings) -> None:
    found = points_of(nested(by_person=True), settings)
    assert all(len(points) == 60 for points in found.values())
