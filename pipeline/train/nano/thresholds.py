"""Which filter thresholds a student's recipe should have: by photographs that are held apart from training.

`python -m maskmill.pipeline.train.nano.thresholds --photos COCO IMAGES [--weights FILE] [--points-per-side
16]`

Every photograph's point grid is asked once; each pair of thresholds then filters and suppresses the same
candidates. Chosen is the pair with the largest share of right masks (`evaluate/automatic.py`) among those
that leave at least `--masks` masks a photograph and none without any.

Shapes: K masks, H x W pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.evaluate.automatic import AutomaticFigures, automatic_figures
from maskmill.pipeline.evaluate.truth import Bools, Truth
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.masks.select import select_masks
from maskmill.pipeline.rle import decode
from maskmill.pipeline.segmenters.base import Segmenter
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_nano, load_student
from maskmill.pipeline.settings import NANO, MaskSettings
from maskmill.pipeline.train.nano.pictures.photographs import held_apart, read_photographs

PREDICTED_IOUS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
STABILITIES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
LEAST_MASKS = 16.0


@dataclass(frozen=True)
class Row:
    """A pair of thresholds and what it gives."""

    predicted_iou: float
    stability: float
    figures: AutomaticFigures


def sweep(segmenter: Segmenter, pictures: Sequence[Truth], settings: MaskSettings = NANO) -> list[Row]:
    """Figures of every pair of thresholds.

    Args:
        segmenter: the model.
        pictures: with labels; never trained on.
        settings: of the stage; their thresholds are replaced.
    """
    iou, stability = min(PREDICTED_IOUS), min(STABILITIES)
    stage = AutomaticMasks(segmenter, replace(settings, predicted_iou=iou, stability=stability))
    asked = [stage.candidates(picture.image, predicted_iou=iou, stability=stability) for picture in pictures]
    rows = []
    for predicted_iou in PREDICTED_IOUS:
        for stability in STABILITIES:
            own = replace(settings, predicted_iou=predicted_iou, stability=stability)
            masks = []
            for picture, candidates in zip(pictures, asked, strict=True):
                height, width = picture.image.shape[:2]
                masks.append(masks_of(select_masks(candidates, own, height=height, width=width)))
            rows.append(Row(predicted_iou, stability, automatic_figures(masks, pictures)))
    return rows


def masks_of(annotated: AnnotatedImage) -> Bools:
    """bool[K, H, W] of an image's annotations."""
    if not annotated.annotations:
        return np.zeros((0, annotated.height, annotated.width), np.bool_)
    return np.stack([decode(one.segmentation) for one in annotated.annotations])


def choose(rows: Sequence[Row], least_masks: float = LEAST_MASKS) -> Row:
    """The row with the most right masks among those with enough of them.

    Raises:
        ValueError: no row leaves enough masks.
    """
    enough = [row for row in rows if row.figures.masks_per_picture >= least_masks and row.figures.fewest > 0]
    if not enough:
        raise ValueError(f"no thresholds leave {least_masks} masks a picture: ask for fewer, or train on")
    return max(enough, key=lambda row: row.figures.right_share)


def main() -> None:
    """Read the command line, sweep, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, nargs=2, metavar=("COCO", "IMAGES"), required=True)
    parser.add_argument("--weights", type=Path, help="a student's weights instead of the shipped ones")
    parser.add_argument("--points-per-side", type=int, default=NANO.points_per_side)
    parser.add_argument("--masks", type=float, default=LEAST_MASKS, help="a photograph, at least")
    given = parser.parse_args()
    segmenter = SamSegmenter(load_student(given.weights) if given.weights else load_nano(), device="cpu")
    settings = replace(NANO, points_per_side=given.points_per_side)
    rows = sweep(segmenter, held_apart(read_photographs(*given.photos)), settings)
    sys.stdout.write("| predicted IoU > | stability >= | masks | fewest | right | a label | found |\n")
    for row in rows:
        one = row.figures
        sys.stdout.write(
            f"| {row.predicted_iou} | {row.stability} | {one.masks_per_picture:.1f} | {one.fewest} | "
            f"{one.right_share:.3f} | {one.label_share:.3f} | {one.found_share:.3f} |\n"
        )
    chosen = choose(rows, given.masks)
    sys.stdout.write(f"chosen: predicted IoU > {chosen.predicted_iou}, stability >= {chosen.stability}\n")


if __name__ == "__main__":
    main()
