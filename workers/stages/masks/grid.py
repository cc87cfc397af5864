"""Masks from the grid: `maskmill.pipeline.masks.automask` over a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.settings import MASKS_REVISION, MaskSettings, SegmenterSettings, output_settings
from maskmill.storage.shards.index import MASK_INDEX
from maskmill.workers.run.columns import MASKS, ColumnFacts
from maskmill.workers.stages.base import Picture, Stage, StageResult
from maskmill.workers.stages.masks.records import decode_masks, encode_masks

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.workers.stages.base import Bench


class GridMasks(Stage):
    """See `Stage`.

    Args:
        annotate: gives the masks of pictures.
        fingerprint, models: of the column version.
        prepare: loads what `annotate` needs.
    """

    column = MASKS
    index = MASK_INDEX

    def __init__(
        self,
        annotate: Callable[[Sequence[npt.NDArray[np.uint8]]], list[AnnotatedImage]],
        *,
        fingerprint: str,
        models: Mapping[str, str],
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._annotate = annotate
        self._prepare = prepare
        self.fingerprint = fingerprint
        self.models = models

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        if self._prepare is not None:
            self._prepare()

    def decode(self, files: Mapping[str, bytes]) -> AnnotatedImage:
        """See `Stage.decode`. Raises ValueError, KeyError."""
        return decode_masks(files)

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        annotated = self._annotate([picture.pixels_HWC for picture in pictures])
        return [
            StageResult(partial(encode_masks, picture, image), image.seconds_by_step, image)
            for picture, image in zip(pictures, annotated, strict=True)
        ]


def grid_facts(masks: MaskSettings, segmenter: SegmenterSettings) -> ColumnFacts:
    """What the fingerprint of masks from the grid is made of.

    Raises:
        WeightsError: the segmenter's weights are missing or damaged.
    """
    return ColumnFacts(
        settings={**output_settings(masks), **output_settings(segmenter)},
        revision=MASKS_REVISION,
        models={"segmenter": weights_identity(segmenter)},
    )


def grid_stage(bench: Bench, masks: MaskSettings, models: Mapping[str, str]) -> GridMasks:
    """The stage of a worker, over its segmenter."""
    from maskmill.pipeline.masks.automask import AutomaticMasks  # imports torch

    return GridMasks(
        AutomaticMasks(bench.segmenter, masks),
        fingerprint=bench.fingerprint,
        models=models,
        prepare=partial(load_and_warm_up, bench.segmenter),
    )


def load_and_warm_up(segmenter: Segmenter) -> None:
    """Loads the model, and the compiled kernels meanwhile.

    Raises:
        WeightsError: weights that are missing, damaged or another model's.
    """
    from maskmill.pipeline.masks.automask import warm_up  # imports torch

    with ThreadPoolExecutor(1, "warm-up") as pool:
        kernels = pool.submit(warm_up)
        segmenter.image_size  # noqa: B018  (asking loads it)
        kernels.result()
