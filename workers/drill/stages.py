"""A stand-in for the models: masks from brightness bands, in a time that can be chosen; poison kills it.

Everything around it is the real thing: reading, decoding, tars, index, commits. A shard costs milliseconds
beside what it sleeps, so thousands of faults fit into minutes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.rle import Rle
from maskmill.storage.dataset.records import fingerprint
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import is_remote, open_store
from maskmill.workers.drill import disk
from maskmill.workers.drill.orders import Orders
from maskmill.workers.drill.upsets import clocks
from maskmill.workers.run.ingest_settings import INGEST_REVISION
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.masks.grid import GridMasks
from maskmill.workers.stages.registry import resolved, sections_of

POISON = (255, 0, 255)
"""The colour of an image that kills; whole images of one colour survive JPEG."""

NUM_BANDS = 4

Pixels = npt.NDArray[np.uint8]
Build = Callable[[RunSpec], Stages]


def drill_spec(root: str, revision: int = 1) -> RunSpec:
    """A run of the stand-in into `root`; another revision makes the same masks as another column version."""
    images = fingerprint({"drill": IMAGES}, weights=None, revision=INGEST_REVISION, inputs={})
    masks = fingerprint({"drill": MASKS}, weights=None, revision=revision, inputs={IMAGES: images})
    settings = resolved(sections_of({}))  # as they are by default: a generation says them
    return RunSpec(root=root, fingerprints={IMAGES: images, MASKS: masks}, settings=settings)


@dataclass(frozen=True)
class Builder:
    """Makes a worker's stages; see `maskmill.workers.pool.actors.start_worker`.

    Attributes:
        seconds: an image takes.
        orders_folder: of the write faults that a worker is to meet; None leaves it in peace.
        upset: clocks may jump, and leases are short.
    """

    seconds: float = 0.0
    orders_folder: Path | None = None
    upset: bool = False

    def __call__(self, spec: RunSpec) -> Stages:
        if self.orders_folder is not None:
            leave_pandas_out()  # a worker of its own, which starts often
            if not is_remote(spec.root):
                disk.install(Orders(self.orders_folder), spec.root)
            if self.upset:
                clocks.install(Orders(self.orders_folder))
        store = open_store(spec.root)
        stage = GridMasks(
            BandMasks(self.seconds), fingerprint=spec.fingerprints[MASKS], models={"segmenter": "bands"}
        )
        return Stages(spec, store, load_plans(store), (stage,))


def leave_pandas_out() -> None:
    """pyarrow loads pandas, where it is installed, to look at lists: a second of every worker's start."""
    if not any(isinstance(finder, _NoPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NoPandas())


class _NoPandas:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """See `importlib.abc.MetaPathFinder`.

        Raises:
            ModuleNotFoundError: pandas is asked for.
        """
        if name == "pandas":
            raise ModuleNotFoundError("left out of a drill", name=name)


@dataclass(frozen=True)
class BandMasks:
    """A mask for each brightness band that an image has."""

    seconds: float

    def __call__(self, images: Sequence[Pixels]) -> list[AnnotatedImage]:
        return [self._annotate(image) for image in images]

    def _annotate(self, image_HWC: Pixels) -> AnnotatedImage:
        if np.abs(np.median(image_HWC, axis=(0, 1)) - np.array(POISON)).max() < 20:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        bands_HW = image_HWC.mean(axis=2).astype(int) * NUM_BANDS // 256
        masks = [bands_HW == band for band in range(NUM_BANDS)]
        found = tuple(_annotation(mask, band) for band, mask in enumerate(masks) if mask.any())
        return AnnotatedImage(image_HWC.shape[1], image_HWC.shape[0], found, {"model": self.seconds})


def _annotation(mask_HW: npt.NDArray[np.bool_], band: int) -> Annotation:
    height, width = mask_HW.shape
    rows, columns = np.nonzero(mask_HW)
    x, y = float(columns.min()), float(rows.min())
    counts = coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))["counts"]
    return Annotation(
        segmentation=Rle(height=height, width=width, counts=counts),
        bbox_xywh=(x, y, float(columns.max()) - x, float(rows.max()) - y),
        area_px=int(mask_HW.sum()),
        predicted_iou=0.9 + band / 100,
        stability_score=0.97,
        crop_box_xywh=(0.0, 0.0, float(width), float(height)),
        point_xy=((float(columns[0]), float(rows[0])),),
        output_token=band % 3,
        parent=None,
    )
