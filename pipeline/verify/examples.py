"""Masks whose truth is known: a model's own, made of labelled pictures, with the features a verifier sees.

A mask's truth is its best IoU with a label. Where pictures are not labelled completely, only masks that lie
mostly in labelled area are judged (as in evaluate/automatic.py).

Shape suffixes: N masks, L labels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.evaluate.truth import Bools, Truth
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.rle import decode
from maskmill.pipeline.scenes.scenes import generate_scene
from maskmill.pipeline.segmenters.base import (
    GridParts,
    ImageEmbedding,
    PromptableImage,
    Segmenter,
    grid_parts_of,
)
from maskmill.pipeline.settings import MaskSettings
from maskmill.pipeline.verify.coverage import Floats32
from maskmill.pipeline.verify.features import features
from maskmill.pipeline.verify.fit import Examples


class _Watched:
    """A segmenter whose last embeddings are remembered, so that a picture is embedded once."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.last: list[ImageEmbedding] = []
        self.image_size, self.mask_threshold = segmenter.image_size, segmenter.mask_threshold
        self.images_per_batch = segmenter.images_per_batch

    def grid_parts(self) -> GridParts | None:
        """The segmenter's own."""
        return grid_parts_of(self._segmenter)

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """As `Segmenter.embed`; kept as `last`."""
        self.last = self._segmenter.embed(images)
        return self.last

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        """As `Segmenter.prompt`."""
        return self._segmenter.prompt(embedding)


@dataclass(frozen=True, eq=False)
class Judged:
    """A labelled picture with the masks a model made of it.

    Attributes:
        truth: the picture.
        image: the masks.
        embedding: of the whole picture.
        iou_N: each mask's best IoU with a label.
        is_labelled_N: which masks lie mostly in labelled area.
    """

    truth: Truth
    image: AnnotatedImage
    embedding: ImageEmbedding
    iou_N: npt.NDArray[np.float32]
    is_labelled_N: npt.NDArray[np.bool_]

    @cached_property
    def features_NF(self) -> Floats32:
        """What a verifier sees of the masks."""
        return features(self.image, pixels_HWC=self.truth.image, embedding=self.embedding)

    def recall(self, least_iou: float = 0.5) -> float:
        """Share of the labels that a mask meets; 1 where there are none."""
        labels, masks = self.truth.masks_NHW, masks_of(self.image)
        return (
            float((iou_matrix(masks, labels).max(axis=0, initial=0) >= least_iou).mean())
            if len(labels)
            else 1.0
        )


def masks_of(image: AnnotatedImage) -> Bools:
    """bool[N, H, W]."""
    if not image.annotations:
        return np.zeros((0, image.height, image.width), np.bool_)
    return np.stack([decode(one.segmentation) for one in image.annotations])


def iou_matrix(masks_NHW: Bools, labels_LHW: Bools) -> npt.NDArray[np.float32]:
    """float32[N, L]."""
    pixels = masks_NHW.shape[1] * masks_NHW.shape[2]
    masks = masks_NHW.reshape(len(masks_NHW), pixels).astype(np.float32)
    labels = labels_LHW.reshape(len(labels_LHW), pixels).astype(np.float32)
    common = masks @ labels.T
    found: npt.NDArray[np.float32] = common / np.maximum(masks.sum(1)[:, None] + labels.sum(1) - common, 1)
    return found


def judge(segmenter: Segmenter, settings: MaskSettings, pictures: Iterable[Truth]) -> Iterator[Judged]:
    """Each picture's masks by these settings, judged.

    Args:
        segmenter: whose masks.
        settings: of the grid.
        pictures: labelled.
    """
    watched = _Watched(segmenter)
    stage = AutomaticMasks(watched, settings)
    for truth in pictures:
        (image,) = stage([truth.image])
        whole = watched.last[0] if not settings.crop_layers else segmenter.embed([truth.image])[0]
        masks, labels = masks_of(image), truth.masks_NHW
        iou_N = iou_matrix(masks, labels).max(axis=1, initial=0)
        area_N = masks.sum((1, 2))
        is_labelled_N = (masks & labels.any(axis=0)).sum((1, 2)) > 0.5 * area_N
        yield Judged(truth, image, whole, iou_N, is_labelled_N)


def examples_of(judged: Sequence[Judged], *, complete: bool, weight: float = 1.0) -> Examples:
    """What a head is fitted to.

    Args:
        judged: of some pictures.
        complete: whether everything there is labelled; else masks outside labelled area are left out.
        weight: of each mask.
    """
    columns = [one.features_NF for one in judged]
    keep = [np.ones(len(one.iou_N), bool) if complete else one.is_labelled_N for one in judged]
    numbers = [np.full(int(kept.sum()), place) for place, kept in enumerate(keep)]
    iou_N = np.concatenate([one.iou_N[kept] for one, kept in zip(judged, keep, strict=True)])
    return Examples(
        np.concatenate([some[kept] for some, kept in zip(columns, keep, strict=True)]),
        iou_N.astype(np.float32),
        np.concatenate(numbers).astype(np.int64),
        np.full(len(iou_N), weight, np.float32),
    )


def scenes(seeds: Iterable[int], side: int) -> Iterator[Truth]:
    """Generated pictures, completely labelled."""
    for seed in seeds:
        one = generate_scene(seed, side)
        yield Truth(f"scene {seed}", one.image, one.masks_NHW)
