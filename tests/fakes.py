"""Stand-ins that behave like the real thing in small, made by hand.

`FakeMasks` draws masks from what is in the image, so that results can be told apart and compared, and does
what an image's
colour asks for: magenta kills the process, yellow hangs, cyan is a bug, and so on. A trigger is a
whole-image colour, which survives JPEG.
"""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.rle import Rle
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import MASKS, RunSpec
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.masks.grid import GridMasks

Pixels = npt.NDArray[np.uint8]

KILLS = (255, 0, 255)
HANGS = (255, 255, 0)
IS_A_BUG = (0, 255, 255)
NEEDS_MEMORY = (255, 128, 0)
FULL_DISK = (128, 0, 255)


@dataclass
class FakeMasks:
    """A mask for each of four brightness bands that the image has.

    Args:
        seconds: an image takes.
        marks: a folder where each image leaves a line, to count work by; None leaves none.
    """

    seconds: float = 0.0
    marks: str | None = None

    def __call__(self, images: Sequence[Pixels]) -> list[AnnotatedImage]:
        return [self._annotate(image) for image in images]

    def _annotate(self, image: Pixels) -> AnnotatedImage:
        if self.marks:
            with Path(self.marks, str(os.getpid())).open("a") as file:
                file.write("image\n")
        time.sleep(self.seconds)
        _obey(image)
        bands_HW = image.mean(axis=2).astype(int) // 64
        masks = [bands_HW == band for band in range(4)]
        return AnnotatedImage(
            image.shape[1],
            image.shape[0],
            tuple(_annotation(mask, band) for band, mask in enumerate(masks) if mask.any()),
            {"model": self.seconds},
        )


def build_fake_stages(spec: RunSpec, masks: FakeMasks) -> Stages:
    """Stages with `FakeMasks`; give it to actors by `functools.partial`."""
    store = open_store(spec.root)
    stage = GridMasks(masks, fingerprint=spec.fingerprints[MASKS], models={"segmenter": "fake"})
    return Stages(spec, store, load_plans(store), (stage,))


def write_pictures(
    folder: Path,
    num_images: int,
    *,
    first: int = 0,
    special: dict[int, tuple[int, int, int]] | None = None,
) -> None:
    """JPEGs 00000.jpg, ... (from `first` on) of blocks of grey, each another; `special` of one colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + num_images):
        colour = (special or {}).get(i)
        pixels = np.full((48, 64, 3), colour, np.uint8) if colour else _blocks(i)
        (folder / f"{i:05d}.jpg").write_bytes(jpeg_bytes(pixels))


def jpeg_bytes(pixels: Pixels) -> bytes:
    """A JPEG of quality 95."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _blocks(seed: int) -> Pixels:
    small = np.random.default_rng(seed).integers(0, 255, (3, 4), np.uint8)
    return np.repeat(np.kron(small, np.ones((16, 16), np.uint8))[:, :, None], 3, axis=2)


def _obey(image: Pixels) -> None:
    colour = np.median(image.reshape(-1, 3), axis=0)

    def is_(asked: tuple[int, int, int]) -> bool:
        return bool(np.abs(colour - np.array(asked)).max() < 20)

    if is_(KILLS):
        os.kill(os.getpid(), signal.SIGKILL)
    if is_(HANGS):
        time.sleep(600)
    if is_(IS_A_BUG):
        raise ZeroDivisionError("a bug in our code")
    if is_(NEEDS_MEMORY):
        raise MemoryError("no room for this image")
    if is_(FULL_DISK):
        from maskmill.storage.errors import OutOfSpace

        raise OutOfSpace("/data: the disk is full; free some space and run again")


def _rle(mask_HW: npt.NDArray[np.bool_]) -> Rle:
    """By pycocotools: the pipeline's own is compiled when first called, which takes a worker seconds."""
    counts = coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))["counts"]
    return Rle(height=mask_HW.shape[0], width=mask_HW.shape[1], counts=counts)


def _annotation(mask_HW: npt.NDArray[np.bool_], band: int) -> Annotation:
    rows, columns = np.nonzero(mask_HW)
    x, y = float(columns.min()), float(rows.min())
    height, width = mask_HW.shape
    return Annotation(
        segmentation=_rle(mask_HW),
        bbox_xywh=(x, y, float(columns.max()) - x, float(rows.max()) - y),
        area_px=int(mask_HW.sum()),
        predicted_iou=0.9 + band / 100,
        stability_score=0.97,
        crop_box_xywh=(0.0, 0.0, float(width), float(height)),
        point_xy=((float(columns[0]), float(rows[0])),),
        output_token=band % 3,
        parent=None,
    )
