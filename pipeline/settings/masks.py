"""Settings of the grid-mask stage, and the three that people name: `NANO`, `FAST` and `SA1B`."""

from __future__ import annotations

import dataclasses

from maskmill.pipeline.checks import check_choice, check_int, check_range, check_type
from maskmill.pipeline.settings.roles import LATER, NEUTRAL

MASKS_REVISION = 2
"""Raised by hand when the grid-mask stage gives other masks for the same settings and weights; part of every
fingerprint. Here, so that drivers can read it without importing torch."""


OUTPUTS = ("all", "best")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """Settings of the automatic mask stage; the defaults are the public generator's.

    Args:
        points_per_side: grid points along each side of the image, 1 to 256.
        points_per_batch: prompts decoded at once, at least 1. Neutral.
        predicted_iou: masks must have a predicted IoU above this, in [0, 1]; 0 keeps all.
        stability: masks must have at least this stability score, in [0, 1]; 0 keeps all.
        stability_offset: distance in logits of the two cut-offs that the score compares, above 0.
        box_nms: box IoU above which the worse of two masks of one crop is dropped, in [0, 1].
        crop_layers: layers of crops beside the whole image, 0 to 4; layer i has 2^i x 2^i crops.
        crop_nms: box IoU above which the mask of the larger crop is dropped, in [0, 1].
        crop_overlap: overlap of the first layer's crops as a share of the image's shorter side, in [0, 1).
        crop_points_downscale: layer i has points_per_side / downscale^i points a side; an integer from 1.
        min_area_px: islands and holes smaller than this are removed and filled; 0 turns it off.
        max_coverage: masks that cover this share of the image or more are dropped, in (0, 1]; None keeps all.
        outputs: "all" three of a prompt's masks go on, or only the one of the "best" predicted IoU, as
            SAM-HQ's own generator does.
        drop_small: drop a mask whose largest island is smaller than min_area_px (the public code keeps
            that island).
        keep_candidates: store, as a column of their own, all masks above the next two thresholds, before
            NMS: other settings of thresholds, NMS, coverage and clean-up then need no model. Neutral.
        candidate_iou, candidate_stability: of stored candidates, in [0, 1], not above predicted_iou and
            stability. Lower ones store more. Neutral for masks.

    Raises:
        ValueError: a value out of its range.

    Source: Kirillov et al., Segment Anything (2023), appendix B; segment_anything 1.0,
    automatic_mask_generator.py.
    """

    points_per_side: int = 32
    points_per_batch: int = dataclasses.field(default=64, metadata=NEUTRAL)
    predicted_iou: float = 0.88
    stability: float = 0.95
    stability_offset: float = 1.0
    box_nms: float = 0.7
    crop_layers: int = 0
    crop_nms: float = 0.7
    crop_overlap: float = 512 / 1500
    crop_points_downscale: int = 1
    min_area_px: int = 0
    max_coverage: float | None = None
    drop_small: bool = False
    outputs: str = dataclasses.field(default="all", metadata=LATER)
    keep_candidates: bool = dataclasses.field(default=False, metadata=NEUTRAL)
    candidate_iou: float = dataclasses.field(default=0.7, metadata=NEUTRAL)
    candidate_stability: float = dataclasses.field(default=0.85, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        check_int("points_per_side", self.points_per_side, 1, 256)
        check_int("points_per_batch", self.points_per_batch, 1, 65_536)
        thresholds = ("predicted_iou", "stability", "candidate_iou", "candidate_stability")
        for name in (*thresholds, "box_nms", "crop_nms"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_range("stability_offset", self.stability_offset, 1e-6, 100.0)

        # The grid and its crops
        check_int("crop_layers", self.crop_layers, 0, 4)
        check_range("crop_overlap", self.crop_overlap, 0.0, 0.99)
        check_int("crop_points_downscale", self.crop_points_downscale, 1, 256)
        if self.points_per_side // self.crop_points_downscale**self.crop_layers < 1:
            raise ValueError(
                f"points_per_side={self.points_per_side} leaves no point in crop layer "
                f"{self.crop_layers} with crop_points_downscale={self.crop_points_downscale}: "
                "use more points or fewer layers"
            )

        # Clean-up and candidates
        check_int("min_area_px", self.min_area_px, 0, 1_000_000)
        if self.max_coverage is not None:
            check_range("max_coverage", self.max_coverage, 1e-6, 1.0)
        above = self.candidate_iou > self.predicted_iou or self.candidate_stability > self.stability
        if self.keep_candidates and above:
            raise ValueError(
                f"candidates above candidate_iou={self.candidate_iou} and candidate_stability="
                f"{self.candidate_stability} cannot give masks above predicted_iou={self.predicted_iou} and "
                f"stability={self.stability}: lower the candidates' thresholds to these or below"
            )
        check_choice("outputs", self.outputs, OUTPUTS)
        check_type("drop_small", self.drop_small, bool)
        check_type("keep_candidates", self.keep_candidates, bool)
        if self.drop_small and self.min_area_px == 0:
            raise ValueError(
                "drop_small needs min_area_px above 0: it drops masks whose largest island is smaller"
            )


NANO = MaskSettings(
    points_per_side=16,
    predicted_iou=0.45,
    stability=0.4,
    candidate_iou=0.2,
    candidate_stability=0.1,
    min_area_px=25,
    max_coverage=0.95,
    drop_small=True,
)
"""The nano recipe's: what its thresholds are chosen with and its verifier is trained on.

Chosen by `maskmill.pipeline.train.nano.thresholds`; docs/nano.md has the table.
"""

FAST = MaskSettings()
"""The public generator's defaults: one 32x32 grid, no clean-up."""

SA1B = MaskSettings(
    crop_layers=2, crop_points_downscale=2, min_area_px=100, max_coverage=0.95, drop_small=True
)
"""The settings that annotated SA-1B: 32x32 points, 2x2 crops at 16x16, 4x4 crops at 8x8, both clean-up rules.

Source: Segment Anything, appendix B.
"""
