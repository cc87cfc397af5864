"""A segmenter that is loaded when first asked for, and one that embeds each picture once for all stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskmill.workers.stages.base import Picture

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import GridParts, ImageEmbedding, PromptableImage, Segmenter


class LazySegmenter:
    """A segmenter that is loaded when first asked for; see `Segmenter`."""

    def __init__(self, load: Callable[[], Segmenter]) -> None:
        self._load = load

    @cached_property
    def loaded(self) -> Segmenter:
        """The segmenter itself."""
        return self._load()

    @property
    def image_size(self) -> int:
        """See `Segmenter`."""
        return self.loaded.image_size

    @property
    def mask_threshold(self) -> float:
        """See `Segmenter`."""
        return self.loaded.mask_threshold

    @property
    def images_per_batch(self) -> int:
        """See `Segmenter`."""
        return self.loaded.images_per_batch

    def grid_parts(self) -> GridParts | None:
        """See `HasGridParts`."""
        from maskmill.pipeline.segmenters.base import grid_parts_of

        return grid_parts_of(self.loaded)

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """See `Segmenter.embed`."""
        return self.loaded.embed(images)

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        """See `Segmenter.prompt`."""
        return self.loaded.prompt(embedding)


class SharedEmbeddings:
    """A segmenter that embeds each picture of the batch in hand once, for all stages.

    Crops and other images pass through. Pictures are known by their memory, so `hold` them for a batch's
    time.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._held: dict[tuple[int, tuple[int, ...]], ImageEmbedding | None] = {}

    @property
    def image_size(self) -> int:
        """See `Segmenter`."""
        return self._segmenter.image_size

    @property
    def mask_threshold(self) -> float:
        """See `Segmenter`."""
        return self._segmenter.mask_threshold

    @property
    def images_per_batch(self) -> int:
        """See `Segmenter`."""
        return self._segmenter.images_per_batch

    def grid_parts(self) -> GridParts | None:
        """See `HasGridParts`."""
        from maskmill.pipeline.segmenters.base import grid_parts_of

        return grid_parts_of(self._segmenter)

    def hold(self, pictures: Sequence[Picture]) -> None:
        """Forgets the last batch; embeddings of these pictures are kept until the next call.

        Where a later stage reads kept embeddings, those that were read back stand for the encoder's.
        """
        self._held = {_place(picture.pixels_HWC): _kept(picture) for picture in pictures}

    def keep(self, pixels_HWC: npt.NDArray[np.uint8], embedding: ImageEmbedding | None) -> None:
        """From now on a picture's embedding is this one, until the next batch is held.

        Args:
            pixels_HWC: the picture, which must stay where it is in memory.
            embedding: of it; None: what the encoder makes of it when it is first asked.
        """
        self._held[_place(pixels_HWC)] = embedding

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """See `Segmenter.embed`."""
        places = [_place(image) for image in images]
        missing = [i for i, place in enumerate(places) if self._held.get(place) is None]
        found: dict[int, ImageEmbedding] = dict(
            zip(missing, self._segmenter.embed([images[i] for i in missing]) if missing else [], strict=True)
        )
        for i, embedding in found.items():
            if places[i] in self._held:
                self._held[places[i]] = embedding
        held = (self._held.get(place) for place in places)
        return [found[i] if i in found else _known(embedding) for i, embedding in enumerate(held)]

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        """See `Segmenter.prompt`."""
        return self._segmenter.prompt(embedding)


def _kept(picture: Picture) -> ImageEmbedding | None:
    """What was read back of a picture; a reject has none."""
    from maskmill.pipeline.segmenters.base import ImageEmbedding  # imports no torch, but numpy

    found = picture.given.get("embeddings")
    return found if isinstance(found, ImageEmbedding) else None


def _known(embedding: ImageEmbedding | None) -> ImageEmbedding:
    assert embedding is not None
    return embedding


def _place(image: npt.NDArray[np.uint8]) -> tuple[int, tuple[int, ...]]:
    """Where an image lies in memory: the same for an image and a view of all of it."""
    return int(image.__array_interface__["data"][0]), (*image.shape, *image.strides)
