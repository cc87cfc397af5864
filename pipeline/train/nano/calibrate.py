"""Make a student's predicted IoU true, last: its head is fitted alone, then a curve corrects it.

`python -m maskmill.pipeline.train.nano.calibrate --run DIR --out FILE [--photos COCO IMAGES]`

While masks still improve, predicted IoU lags behind them; and it filters, so it should be right about the
masks that ship. All other weights stand still. First the head is fitted to fresh crops of the photographs
that the run in DIR was trained on (`iou_head.py`). Then random points ask for the masks of photographs
that are held apart from training (without `--photos`, of scenes that training doesn't reach); isotonic
regression of what the outputs' IoUs are on what the head says gives a rising curve, which is stored with
the weights (`CalibratedHead`). A curve that rises changes no order: only what a threshold means. Between
the two the mask logits get their depth (`temperature.py`), by the same photographs or scenes.

Shapes: A answers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from segment_anything.modeling import Sam

from maskmill.pipeline.evaluate.believed import Answers, BeliefFigures, ask_points, belief_figures
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED, generate_scene
from maskmill.pipeline.segmenters.calibrated import CalibratedHead
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_student, save_student, stored_config
from maskmill.pipeline.train.nano.iou_head import fit_iou_head
from maskmill.pipeline.train.nano.pictures.feed import Feed, FeedConfig, Stream
from maskmill.pipeline.train.nano.pictures.photo_crops import CropConfig, PhotoStore
from maskmill.pipeline.train.nano.pictures.photographs import (
    held_apart,
    kept_photographs,
    read_photographs,
    with_segments,
)
from maskmill.pipeline.train.nano.temperature import deepen
from maskmill.pipeline.train.pictures import Pictures
from maskmill.pipeline.verify.fit import fitted_curve

SCENES = 40
LAST_SEED = HELD_BACK_SEED - 1  # counted down: training hardly ever draws one of these
FIRST_PAIR, FEED_SEED = 1_000_000_000, 77  # far beyond what training draws
HEAD_FEED = FeedConfig(region_share=0.15, people_share=0.6)
CROP_BATCHES = 8


@dataclass(frozen=True)
class Calibration:
    """Predicted against true IoU on the pictures of the fit, before and after it."""

    before: BeliefFigures
    after: BeliefFigures


def calibrate(sam: Sam, pictures: Sequence[Truth], *, points: int = 10, seed: int = 0) -> Calibration:
    """Fit a student's calibration curve in place.

    Args:
        sam: a student whose shape has a curve (`iou_knots`); only the curve changes.
        pictures: never trained on.
        points: a mask, each a prompt of its own.
        seed: of the points.

    Returns:
        Figures on these pictures.

    Raises:
        ValueError: a student without a curve, or pictures without masks.
    """
    head = sam.mask_decoder.iou_prediction_head
    if not isinstance(head, CalibratedHead):
        raise ValueError("this student has no calibration curve: train one whose config has iou_knots")
    before = ask_points(SamSegmenter(sam, device="cpu"), pictures, points=points, seed=seed)
    knots = len(head.curve()[0])
    wide = torch.linspace(-2, 3, knots)
    head.set_curve(wide, wide)
    raw = ask_points(SamSegmenter(sam, device="cpu"), pictures, points=points, seed=seed)
    fitted = fitted_curve(raw.predicted_A, raw.true_A, knots=knots)
    head.set_curve(torch.from_numpy(fitted.said_K), torch.from_numpy(fitted.true_K))
    corrected = head.corrected(torch.from_numpy(raw.predicted_A).float()).double().numpy()
    after = Answers(corrected, raw.true_A, raw.mask_A)
    return Calibration(belief_figures(before), belief_figures(after))


def far_scenes(count: int, side: int) -> list[Truth]:
    """Scenes from the far end of training's seeds, as pictures with true masks."""
    scenes = [generate_scene(LAST_SEED - number, side) for number in range(count)]
    return [Truth(f"scene {i}", one.image, one.masks_NHW) for i, one in enumerate(scenes)]


def fresh_batches(run: Path, side: int, count: int) -> Iterator[Pictures]:
    """Batches from a training run's photographs, most of them with people's segments, beside fresh scenes.

    Args:
        run: a training's folder.
        side: of the pictures, px.
        count: batches.
    """
    regions, segmented = kept_photographs(run / "photographs.pt")
    cpu = torch.device("cpu")
    people = PhotoStore(segmented, cpu) if segmented else None
    generator = torch.Generator().manual_seed(FEED_SEED)
    feed = Feed(HEAD_FEED, PhotoStore(regions, cpu), people, Stream(start=FIRST_PAIR), generator)
    return (feed.take(side) for _ in range(count))


def crops_of(pictures: Sequence[Truth], side: int) -> Iterator[Pictures]:
    """Some crops of pictures that were never trained on."""
    generator = torch.Generator().manual_seed(FEED_SEED)
    store = PhotoStore(with_segments(pictures), torch.device("cpu"))
    return (store.draw(4, side, CropConfig(mosaic_share=0.0), generator) for _ in range(CROP_BATCHES))


def main() -> None:
    """Read the command line, fit, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a training's folder")
    parser.add_argument("--out", type=Path, required=True, help="where the calibrated ones go, in float16")
    parser.add_argument("--photos", type=Path, nargs=2, metavar=("COCO", "IMAGES"))
    parser.add_argument("--batches", type=int, default=40, help="of 4 pictures, to fit the head on")
    given = parser.parse_args()

    # A student, and pictures it never saw
    torch.set_num_threads(1)
    weights = given.run / "student.safetensors"
    sam = load_student(weights)
    pictures = held_apart(read_photographs(*given.photos)) if given.photos else []
    if given.photos and not pictures:
        parser.error(f"{given.photos[0]} names none of the photographs that are held apart from training")

    # Its head, its logits' depth, its curve
    side = sam.image_encoder.img_size
    sys.stdout.write(f"head: {fit_iou_head(sam, fresh_batches(given.run, side, given.batches))}\n")
    pictures = pictures or far_scenes(SCENES, side)
    sys.stdout.write(f"logits: x {deepen(sam, crops_of(pictures, side)):.2f}\n")
    report = calibrate(sam, pictures)
    save_student(sam, stored_config(weights), given.out, half=True)
    sys.stdout.write(f"before: {report.before}\nafter:  {report.after}\n")


if __name__ == "__main__":
    main()
