"""The photographs that nano is trained on, and those of them that are held apart.

A folder of photographs with a COCO file of segments may be given. A fixed list of them is never trained on:
thresholds, the calibration curve and the input size are chosen there.

Shapes: L label maps, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import Rle, decode
from maskmill.pipeline.scenes.photo_regions import load_region_photos, photo_regions
from maskmill.pipeline.train.nano.pictures.photo_crops import LABELS_A_PHOTO, LabelledPhoto

REGION_SIDE_PX = 480
HELD_APART = (
    "000000000073.jpg",
    "000000000165.jpg",
    "000000000294.jpg",
    "000000000389.jpg",
    "000000000491.jpg",
    "000000000872.jpg",
    "000000001993.jpg",
    "000000003553.jpg",
    "000000007511.jpg",
    "000000008762.jpg",
)
"""File names of COCO 2017's photographs."""


def read_photographs(annotations: Path, images: Path) -> list[Truth]:
    """Photographs and masks of a COCO-format file; empty masks and crowds are left out.

    Raises:
        ValueError: a photograph that isn't in the folder, or none at all.
    """
    coco = COCO(str(annotations))
    read = []
    for image_id in sorted(coco.getImgIds()):
        name = coco.loadImgs(image_id)[0]["file_name"]
        if not (images / name).is_file():
            raise ValueError(f"{annotations} names {name}, which is not in {images}; give its folder")
        with Image.open(images / name) as opened:
            image = np.asarray(opened.convert("RGB"))
        found = coco.loadAnns(coco.getAnnIds(imgIds=image_id, iscrowd=False))
        masks = [mask for one in found if (mask := decode(Rle.from_coco(coco.annToRLE(one)))).any()]
        stacked = np.stack(masks) if masks else np.zeros((0, *image.shape[:2]), np.bool_)
        read.append(Truth(name, image, stacked))
    if not read:
        raise ValueError(f"{annotations} holds no photographs")
    return read


def to_train(photographs: Sequence[Truth]) -> list[Truth]:
    """Those that aren't held apart."""
    return [one for one in photographs if one.name not in HELD_APART]


def held_apart(photographs: Sequence[Truth]) -> list[Truth]:
    """Those that are never trained on."""
    return [one for one in photographs if one.name in HELD_APART]


def with_segments(photographs: Sequence[Truth]) -> list[LabelledPhoto]:
    """Photographs with their people's segments as one label map; where two overlap, the smaller is on top."""
    return [LabelledPhoto(one.image, _label_map(one.masks_NHW)[None]) for one in photographs]


def with_regions(photographs: Sequence[Truth]) -> list[LabelledPhoto]:
    """scikit-image's photographs and the given ones with bottom-up regions (a second a photograph)."""
    partitioned = [*load_region_photos(), *(photo_regions(_reduced(one.image)) for one in photographs)]
    fits = [one for one in partitioned if one.labels_LHW.max() < LABELS_A_PHOTO]
    return [LabelledPhoto(one.image, one.labels_LHW) for one in fits]


def keep_photographs(path: Path, regions: Sequence[LabelledPhoto], people: Sequence[LabelledPhoto]) -> None:
    """Write both kinds to one file of plain tensors."""
    kinds = {"regions": regions, "people": people}
    torch.save(
        {
            kind: [(torch.from_numpy(one.image.copy()), torch.from_numpy(one.labels_LHW)) for one in some]
            for kind, some in kinds.items()
        },
        path,
    )


def kept_photographs(path: Path) -> tuple[list[LabelledPhoto], list[LabelledPhoto]]:
    """Those with regions and those with people's segments, as `keep_photographs` wrote them."""
    kept = torch.load(path, weights_only=True)
    regions, people = (
        [LabelledPhoto(image.numpy(), labels.numpy()) for image, labels in kept[kind]]
        for kind in ("regions", "people")
    )
    return regions, people


def _label_map(masks_NHW: NDArray[np.bool_]) -> NDArray[np.int32]:
    labels_HW = np.zeros(masks_NHW.shape[1:], np.int32)
    for number in np.argsort(-masks_NHW.sum((1, 2)), kind="stable"):
        labels_HW[masks_NHW[number]] = number + 1
    return labels_HW


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At the size that scikit-image's photographs are partitioned at."""
    small = Image.fromarray(image)
    small.thumbnail((REGION_SIDE_PX, REGION_SIDE_PX), Image.Resampling.BICUBIC)
    return np.asarray(small)
