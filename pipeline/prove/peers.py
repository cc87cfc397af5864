"""The family's own code on the same weights: what our masks are held against.

    SAM's network and students of it   segment_anything's SamAutomaticMaskGenerator (reference.py)
    SAM 2 and 2.1, the authors' files  the sam2 package's SAM2AutomaticMaskGenerator, where it is installed
    other families                     none here yet: ours is timed alone, and it is said

The peer computes in float32, as its authors' code does by default, on the same device.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.reference import ReferenceGenerator
from maskmill.pipeline.rle import Rle
from maskmill.pipeline.segmenters.sam import load_sam
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.families import family_of
from maskmill.pipeline.weights import weights
from maskmill.pipeline.weights.errors import WrongWeights

SAM2_SIZES = {12: "t", 16: "s", 24: "b+", 48: "l"}
"""Blocks of SAM 2's encoder -> the name of its size in the package's settings."""

_BLOCKS = "image_encoder.trunk.blocks."


@dataclass(frozen=True)
class Peer:
    """The other side.

    Attributes:
        name: of the code, for people.
        generate: its masks of an RGB image, uint8[H, W, 3].
    """

    name: str
    generate: Callable[[Pixels], AnnotatedImage]


class NoPeer(LookupError):
    """No other code is here to hold this model against; says why."""


def load_peer(segmenter: SegmenterSettings, masks: MaskSettings) -> Peer:
    """The peer of a model, with its weights loaded.

    Args:
        segmenter: model, weights and device.
        masks: the grid and thresholds that both sides keep.

    Raises:
        NoPeer: the family has none, or it isn't installed.
        WeightsError: weights that can't be used.
    """
    family = family_of("segmenter", segmenter.model)
    path = weights.resolve(segmenter)
    if family.encoder == "ours":
        sam = load_sam(segmenter.model, path).eval().to(choose_device(segmenter.device))
        return Peer("segment_anything's SamAutomaticMaskGenerator", ReferenceGenerator(sam, masks).annotate)
    if family.name == "sam2" and path.is_file():
        return _sam2(path, choose_device(segmenter.device), masks)
    raise NoPeer(f"{family.title} ({path.name}): no other generator of its masks is known to this command")


def _sam2(path: Path, device: torch.device, masks: MaskSettings) -> Peer:
    if importlib.util.find_spec("sam2") is None:
        raise NoPeer(
            "the sam2 package isn't installed: SAM2_BUILD_CUDA=0 pip install --no-build-isolation 'sam2>=1.1'"
        )
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    from sam2.build_sam import build_sam2

    tensors = weights.read_model(path)
    num_blocks = len({name.split(".")[3] for name in tensors if name.startswith(_BLOCKS)})
    if num_blocks not in SAM2_SIZES:
        raise WrongWeights(f"weights file {path} is of no SAM 2 size that the sam2 package knows")
    model = build_sam2(f"configs/sam2.1/sam2.1_hiera_{SAM2_SIZES[num_blocks]}.yaml", device=str(device))
    model.load_state_dict(tensors, strict=False)
    generator = SAM2AutomaticMaskGenerator(
        model,
        points_per_side=masks.points_per_side,
        points_per_batch=masks.points_per_batch,
        pred_iou_thresh=masks.predicted_iou,
        stability_score_thresh=masks.stability,
        stability_score_offset=masks.stability_offset,
        box_nms_thresh=masks.box_nms,
        crop_n_layers=masks.crop_layers,
        crop_nms_thresh=masks.crop_nms,
        crop_overlap_ratio=masks.crop_overlap,
        crop_n_points_downscale_factor=masks.crop_points_downscale,
        min_mask_region_area=masks.min_area_px,
        output_mode="coco_rle",
    )

    def generate(image: Pixels) -> AnnotatedImage:
        """Its rows as annotations."""
        rows = [_annotation(row) for row in generator.generate(image)]
        return AnnotatedImage(image.shape[1], image.shape[0], tuple(rows))

    return Peer("sam2's SAM2AutomaticMaskGenerator", generate)


def _annotation(row: dict[str, Any]) -> Annotation:
    return Annotation(
        segmentation=Rle.from_coco(row["segmentation"]),
        bbox_xywh=tuple(row["bbox"]),
        area_px=int(row["area"]),
        predicted_iou=float(row["predicted_iou"]),
        stability_score=float(row["stability_score"]),
        crop_box_xywh=tuple(row["crop_box"]),
        point_xy=tuple(tuple(point) for point in row["point_coords"]),
    )
