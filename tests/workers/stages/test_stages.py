"""What stages share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from maskmill.pipeline.segmenters.base import ImageEmbedding, PromptableImage
from maskmill.workers.stages.base import Picture
from maskmill.workers.stages.masks.grid import GridMasks
from maskmill.workers.stages.shared import SharedEmbeddings
from tests.fakes import FakeMasks, Pixels


class CountingSegmenter:
    """Embeds an image as its mean, and keeps count."""

    image_size = 8
    mask_threshold = 0.0
    images_per_batch = 2

    def __init__(self) -> None:
        self.embedded: list[float] = []

    def embed(self, images: Sequence[Pixels]) -> list[ImageEmbedding]:
        self.embedded += [float(image.mean()) for image in images]
        return [
            ImageEmbedding(torch.full((1, 1, 1), float(image.mean())), *image.shape[:2], 8, 8)
            for image in images
        ]

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        raise AssertionError("nobody prompts here")


def picture(shade: int) -> Picture:
    pixels = np.full((6, 6, 3), shade, np.uint8)
    return Picture(key=f"{shade:09d}", image_id=shade, pixels_HWC=pixels, caption=None, source="here")


def means(embeddings: list[ImageEmbedding]) -> list[float]:
    return [float(embedding.features_CHW) for embedding in embeddings]


def test_stages_share_one_embedding_a_picture() -> None:
    segmenter = CountingSegmenter()
    shared = SharedEmbeddings(segmenter)
    first, second = picture(10), picture(20)
    shared.hold([first, second])
    whole, crop = first.pixels_HWC[0:6, 0:6], first.pixels_HWC[0:3, 0:3]
    assert means(shared.embed([whole, crop])) == [10, 10]
    assert means(shared.embed([second.pixels_HWC, first.pixels_HWC])) == [20, 10]
    assert means(shared.embed([crop, whole])) == [10, 10]
    assert segmenter.embedded == [10, 10, 20, 10]  # the pictures once each, the crop each time
    assert shared.embed([]) == [] and len(segmenter.embedded) == 4


def test_pictures_are_forgotten_with_their_batch() -> None:
    segmenter = CountingSegmenter()
    shared = SharedEmbeddings(segmenter)
    reused = picture(10)
    shared.hold([reused])
    shared.embed([reused.pixels_HWC])
    reused.pixels_HWC[:] = 30  # the next picture in the same memory
    shared.hold([reused])
    assert means(shared.embed([reused.pixels_HWC])) == [30]


def test_grid_masks_gives_json_and_rows_of_the_same_masks() -> None:
    stage = GridMasks(FakeMasks(), fingerprint="f", models={})
    (result,) = stage.run([picture(100)])
    encoded = result.encode()
    assert encoded.num_masks == len(encoded.rows) == 1
    assert encoded.sample.key == "000000100"
    row = encoded.rows[0]
    assert (row["area_px"], row["bbox_w"], row["image_id"], row["source"]) == (36, 5.0, 100, "here")
