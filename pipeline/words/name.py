"""The name stage: every mask of an image named in an open vocabulary, by CLIP or SigLIP.

One dense feature map per image, averaged under each mask, names all masks for the price of one forward pass.
Two crops a mask (its box; its box with everything else greyed out) say more where a mask is small beside the
map's patches, or where its two best words are close: those masks, and no others, are named again from their
crops, at most `max_crops` an image, the smallest first. Scores are the model's own.

What it doesn't know: what a model's scores are worth on your images; measure it (benchmarks/names.py).

Shape suffixes: N masks, W words, D dimensions, H x W positions of the map or pixels.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE, AnnotatedImage, Annotation
from maskmill.pipeline.machine.batches import Batches
from maskmill.pipeline.pixels import Pixels, check_rgb
from maskmill.pipeline.rle import decode
from maskmill.pipeline.settings.words import NameSettings
from maskmill.pipeline.words.clip import Grid

DENSE = "dense"
CROPS = "crops"

MIN_CROP_PX = 16
"""A crop shows at least this much of the image on a side, so that a mask of one pixel has a surrounding."""


@dataclasses.dataclass(frozen=True)
class MaskNames:
    """The best names of a mask.

    Args:
        names: best first.
        scores: of each, the model's own, in [0, 1].
        by: "dense", from the map of the image, or "crops".
    """

    names: tuple[str, ...]
    scores: tuple[float, ...]
    by: str


@dataclasses.dataclass(frozen=True)
class NamedImage:
    """The names of an image's masks, in their order.

    Args:
        masks: one for each annotation.
        seconds_by_step: time by step; never part of the data.
    """

    masks: tuple[MaskNames, ...]
    seconds_by_step: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)


def names_to_record(
    named: NamedImage, *, image_id: int, width: int, height: int, file_name: str
) -> dict[str, Any]:
    """The record of an image's names, ready for `json.dumps`; `id` is the mask's annotation id.

    Args:
        named: the names of its masks, in order.
        image_id: unique over the dataset, from 0.
        width, height: of the image in px.
        file_name: of the image, as the record names it.
    """
    first_id = image_id * ANNOTATION_IDS_PER_IMAGE
    return {
        "image": {"image_id": image_id, "width": width, "height": height, "file_name": file_name},
        "names": [
            {
                "id": first_id + place,
                "names": [
                    {"name": name, "score": score}
                    for name, score in zip(mask.names, mask.scores, strict=True)
                ],
                "by": mask.by,
            }
            for place, mask in enumerate(named.masks)
        ],
    }


def names_from_record(record: Mapping[str, Any]) -> NamedImage:
    """The inverse of `names_to_record`. Raises ValueError for what is no such record."""
    try:
        return NamedImage(
            tuple(
                MaskNames(
                    tuple(str(one["name"]) for one in row["names"]),
                    tuple(float(one["score"]) for one in row["names"]),
                    str(row["by"]),
                )
                for row in record["names"]
            )
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a record of names: {error!r}") from error


class NamerModel(Protocol):
    """What the stage asks of a namer; see `maskmill.pipeline.words.clip.Namer`, which is one."""

    image_size: int
    pixel_mean: tuple[int, ...]

    def image_features(self, images: Sequence[Pixels]) -> Tensor:
        """float[N, D]: a feature an image, of length 1."""

    def dense_features(self, image: Pixels, longer_side: int) -> Tensor:
        """float[h, w, D]: a feature a cell of the image at that size."""

    def grid_of(self, height: int, width: int, longer_side: int) -> Grid:
        """The cells that `dense_features` has for an image of this size."""

    def text_features(self, words: Sequence[str], templates: Sequence[str]) -> Tensor:
        """float[W, D]: a feature a word, over all templates."""

    def scores(self, features_ND: Tensor, words_WD: Tensor) -> tuple[Tensor, Tensor]:
        """float[N, W] twice: see `Namer.scores`."""


class MaskNamer:
    """The stage: an image and its masks in, names out.

    Args:
        namer: with its weights, on its device.
        vocabulary: the words, at least one.
        settings: of the stage.

    Raises:
        ValueError: no words.
    """

    def __init__(self, namer: NamerModel, vocabulary: Sequence[str], settings: NameSettings) -> None:
        self._namer = namer
        self._settings = settings
        self.vocabulary = tuple(vocabulary)
        self._words_WD = namer.text_features(self.vocabulary, settings.templates)
        self._pairs = Batches(settings.batch_size // 2, "namer")

    @torch.inference_mode()
    def __call__(self, image: Pixels, masks: AnnotatedImage) -> NamedImage:
        """Names the masks of an image.

        Args:
            image: uint8[H, W, 3] RGB.
            masks: of this image.

        Raises:
            ValueError: an image of another form, or of another size than its masks.
            torch.OutOfMemoryError, RuntimeError: memory runs out even for a single crop.
        """
        check_rgb(image)
        if image.shape[:2] != (masks.height, masks.width):
            raise ValueError(
                f"the masks are of an image of {masks.width}x{masks.height} px, this one has "
                f"{image.shape[1]}x{image.shape[0]}"
            )
        if not masks.annotations:
            return NamedImage(())

        # All from the dense map
        start_s = time.perf_counter()
        features_ND = self.dense_features(image, masks)
        dense_s = time.perf_counter() - start_s

        # Some again from crops
        again = self._to_crop(features_ND, masks)
        by = np.full(len(features_ND), DENSE, object)
        if len(again):
            features_ND[torch.from_numpy(again)] = self.crop_features(
                image, [masks.annotations[row] for row in again]
            )
            by[again] = CROPS

        seconds = {"dense": dense_s, "crops": time.perf_counter() - start_s - dense_s}
        return NamedImage(self._best(features_ND, by), seconds)

    def dense_features(self, image: Pixels, masks: AnnotatedImage) -> Tensor:
        """float32[N, D] of length 1: the map's features averaged under each mask."""
        features_HWD = self._namer.dense_features(image, self._settings.dense_side)
        height, width = features_HWD.shape[:2]
        shares = [patch_shares(a, height=height, width=width) for a in masks.annotations]
        shares_NP = torch.from_numpy(np.stack(shares)).to(features_HWD)
        return F.normalize(shares_NP.flatten(1) @ features_HWD.flatten(0, 1), dim=-1)

    def crop_features(self, image: Pixels, annotations: Sequence[Annotation]) -> Tensor:
        """float32[N, D] of length 1: the mean of both crops' features of each mask."""

        def embed(some: Sequence[Annotation]) -> Sequence[Tensor]:
            """Both crops of each, as one feature."""
            pairs = [crops_of(image, a, self._settings.margin, self._namer.pixel_mean) for a in some]
            features_2ND = self._namer.image_features([crop for pair in pairs for crop in pair])
            return list(F.normalize(features_2ND.view(len(some), 2, -1).mean(dim=1), dim=-1))

        return torch.stack(self._pairs.run(annotations, embed))

    def _to_crop(self, features_ND: Tensor, masks: AnnotatedImage) -> npt.NDArray[np.int64]:
        """The masks to name from crops, those under the fewest patches first."""
        settings = self._settings
        grid = self._namer.grid_of(masks.height, masks.width, settings.dense_side)
        patch_px = masks.height * masks.width / (grid.height * grid.width)
        patches_N = np.array([a.area_px for a in masks.annotations]) / patch_px
        wanted_N = np.full(len(patches_N), settings.crops == "all")
        if settings.crops == "auto":
            logits_NW, _ = self._namer.scores(features_ND, self._words_WD)
            wanted_N = (patches_N < settings.small_patches) | (margins(logits_NW) < settings.uncertain)
        rows = np.flatnonzero(wanted_N)
        return np.sort(rows[np.argsort(patches_N[rows], kind="stable")][: settings.max_crops])

    def _best(self, features_ND: Tensor, by: npt.NDArray[np.object_]) -> tuple[MaskNames, ...]:
        _, scores_NW = self._namer.scores(features_ND, self._words_WD)
        best = scores_NW.topk(min(self._settings.top_k, len(self.vocabulary)), dim=1)
        scores_NK, words_NK = best.values.cpu().tolist(), best.indices.cpu().tolist()
        return tuple(
            MaskNames(tuple(self.vocabulary[word] for word in words), tuple(scores), str(how))
            for words, scores, how in zip(words_NK, scores_NK, by, strict=True)
        )


def margins(logits_NW: Tensor) -> npt.NDArray[np.float32]:
    """By how much each mask's best word leads the next, in logits; infinite where there is one word."""
    if logits_NW.shape[1] < 2:
        return np.full(len(logits_NW), np.inf, np.float32)
    best_N2 = logits_NW.topk(2, dim=1).values
    lead: npt.NDArray[np.float32] = (best_N2[:, 0] - best_N2[:, 1]).cpu().numpy()
    return lead


def patch_shares(annotation: Annotation, *, height: int, width: int) -> npt.NDArray[np.float32]:
    """The part of a mask under each patch, float32[height, width] that adds up to 1.

    Args:
        annotation: its mask.
        height, width: patches that the mask's image is divided into, evenly up to a pixel.

    A mask without a pixel is spread evenly: it is nowhere in particular.
    """
    rle = annotation.segmentation
    x, y, box_width, box_height = (int(value) for value in annotation.bbox_xywh)
    part_hw = decode(rle)[y : y + box_height + 1, x : x + box_width + 1].astype(np.float32)
    rows = (np.arange(y, y + part_hw.shape[0]) * height) // rle.height
    columns = (np.arange(x, x + part_hw.shape[1]) * width) // rle.width
    row_of_Hh = (rows == np.arange(height)[:, None]).astype(np.float32)
    column_of_wW = (columns[:, None] == np.arange(width)).astype(np.float32)
    counts_HW: npt.NDArray[np.float32] = row_of_Hh @ part_hw @ column_of_wW
    total = counts_HW.sum()
    return counts_HW / total if total > 0 else np.full((height, width), 1 / (height * width), np.float32)


def crops_of(
    image: Pixels, annotation: Annotation, margin: float, fill: Sequence[int]
) -> tuple[Pixels, Pixels]:
    """The square around a mask's box, as it is and with everything else than the mask filled.

    Args:
        image: uint8[H, W, 3].
        annotation: a mask of it.
        margin: shown around the box on each side, as a share of its longer side.
        fill: RGB of what lies outside the image or, in the second crop, outside the mask.
    """
    x, y, box_width, box_height = annotation.bbox_xywh
    side = max(MIN_CROP_PX, round(max(box_width + 1, box_height + 1) * (1 + 2 * margin)))
    left = round(x + (box_width + 1 - side) / 2)
    top = round(y + (box_height + 1 - side) / 2)
    height, width = image.shape[:2]
    inside = np.s_[max(0, top) : min(height, top + side), max(0, left) : min(width, left + side)]
    place = np.s_[
        max(0, -top) : max(0, -top) + inside[0].stop - inside[0].start,
        max(0, -left) : max(0, -left) + inside[1].stop - inside[1].start,
    ]
    box = np.full((side, side, 3), np.array(fill, np.uint8), np.uint8)
    alone = box.copy()
    box[place] = image[inside]
    alone[place] = np.where(decode(annotation.segmentation)[inside][..., None], image[inside], alone[place])
    return box, alone
