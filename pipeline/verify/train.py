"""Train the verifiers of a model on pictures whose masks are known, in minutes.

`python -m maskmill.pipeline.verify.train --out FILE [--photos COCO IMAGES] [--scenes 120] [--weights FILE]`

The model makes masks by its recipe's settings; those are judged by labels (examples.py). The head and its
curves are fitted to them (fit.py), and the share of objects found to the same pictures (exhaustivity.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from maskmill.pipeline.evaluate.believed import calibration_error
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_nano, load_student
from maskmill.pipeline.settings import NANO, MaskSettings, SegmenterSettings
from maskmill.pipeline.train.nano.pictures.photographs import read_photographs
from maskmill.pipeline.verify.examples import Judged, examples_of, judge, scenes
from maskmill.pipeline.verify.exhaustivity import ShareFound, fit_share, look
from maskmill.pipeline.verify.fit import Examples, Fitted, concatenate, fit_head
from maskmill.pipeline.verify.head import RIGHT_IOU
from maskmill.pipeline.verify.ranks import auc
from maskmill.pipeline.verify.verifier import Verifier, save_verifier

FIRST_SEED = HELD_BACK_SEED - 100_000
SCENE_SIDES = (256, 384)
PHOTO_WEIGHT = 3.0
"""Of a photograph's mask against a scene's."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A verifier, what it said of pictures that its parts had not seen, and the masks it learnt from."""

    verifier: Verifier
    fitted: Fitted
    examples: Examples


def train(photos: Sequence[Judged], generated: Sequence[Judged], model: str) -> Trained:
    """Fits a verifier.

    Args:
        photos: photographs, whose labels may be incomplete.
        generated: scenes, completely labelled.
        model: sha256 of the weights that made the masks.

    Raises:
        ValueError: too few masks.
    """
    parts = [examples_of(generated, complete=True)] if generated else []
    if photos:
        parts.append(examples_of(photos, complete=False, weight=PHOTO_WEIGHT))
    examples = concatenate(parts)
    fitted = fit_head(examples, model)
    share = _share([*generated, *photos], fitted)
    return Trained(Verifier(fitted.head, share, model), fitted, examples)


def _share(judged: Sequence[Judged], fitted: Fitted) -> ShareFound:
    """Fitted to whole pictures. (Some with masks taken away at random taught it to overlook bad masks.)"""
    seen, recalls = [], []
    for one in judged:
        if len(one.truth.masks_NHW):
            said = fitted.head(one.features_NF)
            seen.append(look(one.image, said.right_N, one.truth.image).seen_S)
            recalls.append(one.recall())
    return fit_share(seen, recalls)


def gather(
    segmenter: SamSegmenter, settings: MaskSettings, pictures: Iterator[Truth], name: str
) -> list[Judged]:
    """Judged masks, told as they come."""
    found = []
    begun = time.perf_counter()
    for one in judge(segmenter, settings, pictures):
        found.append(one)
        if len(found) % 10 == 0:
            seconds = time.perf_counter() - begun
            sys.stdout.write(f"{name}: {len(found)} pictures, {seconds:.0f} s\n")
            sys.stdout.flush()
    return found


def generated_scenes(count: int) -> Iterator[Truth]:
    """So many scenes that nothing is measured on."""
    for place in range(count):
        yield from scenes([FIRST_SEED + place], SCENE_SIDES[place % len(SCENE_SIDES)])


def main() -> None:
    """Read the command line, gather, fit, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the verifier's file")
    parser.add_argument("--photos", type=Path, nargs=2, metavar=("COCO", "IMAGES"))
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--weights", type=Path, help="a student's weights instead of the shipped ones")
    given = parser.parse_args()

    # Masks and their truth
    model = weights_identity(SegmenterSettings(weights=str(given.weights) if given.weights else None))
    torch.set_num_threads(1)
    segmenter = SamSegmenter(load_student(given.weights) if given.weights else load_nano(), device="cpu")
    photographs = iter(read_photographs(*given.photos)) if given.photos else iter(())
    photos = gather(segmenter, NANO, photographs, "photographs")
    generated = gather(segmenter, NANO, generated_scenes(given.scenes), "scenes")

    # The verifier
    trained = train(photos, generated, model)
    about = {"photographs": [one.truth.name for one in photos], "scenes": len(generated)}
    save_verifier(trained.verifier, given.out, {**about, "model": model})
    masks = trained.examples
    is_right = masks.iou_N >= RIGHT_IOU
    said = trained.fitted
    sys.stdout.write(
        f"{len(masks)} masks, {is_right.mean():.2f} right; of pictures not seen: AUC "
        f"{auc(said.right_N, is_right):.3f} (predicted IoU {auc(masks.features_NF[:, 0], is_right):.3f}), "
        f"calibration error {calibration_error(said.expected_iou_N, masks.iou_N):.3f}\n"
    )


if __name__ == "__main__":
    main()
