"""How well the shipped verifier judges nano's masks: `python -m benchmarks.verifiers --photos COCO IMAGES
--nuclei COCO IMAGES [--scenes 30]`.

For each set: AUC of "IoU >= 0.75" by the verifier, by predicted IoU and by predicted IoU times stability;
expected calibration errors, with bootstrap intervals over pictures; precision among the best 80 %; rank
correlation of the share found with the true recall (at IoU 0.5). Photographs count only masks that lie mostly
in labelled area. Last, what judging costs against making the masks, by CPU time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from maskmill.pipeline.evaluate.believed import calibration_error
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_nano
from maskmill.pipeline.settings import NANO, SegmenterSettings
from maskmill.pipeline.train.nano.pictures.photographs import read_photographs
from maskmill.pipeline.verify.examples import Judged, examples_of, judge, scenes
from maskmill.pipeline.verify.features import FEATURES
from maskmill.pipeline.verify.head import RIGHT_IOU
from maskmill.pipeline.verify.ranks import accepted_precision, auc, rank_correlation
from maskmill.pipeline.verify.train import SCENE_SIDES
from maskmill.pipeline.verify.verifier import Verifier, load_verifier

DRAWS = 500
COSTED = 20
"""Pictures of a set whose cost is measured, at most."""
Floats = NDArray[np.float32]


def interval(pictures: NDArray[np.int64], figure: Callable[[NDArray[np.int64]], float]) -> str:
    """A figure of rows, and the ends of its interval over pictures drawn anew."""
    rng = np.random.default_rng(0)
    rows_of = [np.flatnonzero(pictures == number) for number in np.unique(pictures)]
    drawn = [
        figure(np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))]))
        for _ in range(DRAWS)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{figure(np.arange(len(pictures))):.3f} [{low:.3f}, {high:.3f}]"


def report(name: str, judged: Sequence[Judged], verifier: Verifier, *, complete: bool) -> None:
    """Prints a set's figures."""
    some = examples_of(judged, complete=complete)
    said = verifier.head(some.features_NF)
    is_right = some.iou_N >= RIGHT_IOU
    right = is_right.astype(np.float64)
    predicted, product = (
        some.features_NF[:, FEATURES.index(one)] for one in ("predicted_iou", "scores_product")
    )
    print(f"{name}: {len(judged)} pictures, {len(some)} masks judged, {is_right.mean():.3f} right")
    scores = (("verifier", said.right_N), ("predicted IoU", predicted), ("x stability", product))
    for who, score in scores:
        area = interval(
            some.picture_N,
            lambda rows, score=score: auc(score[rows], is_right[rows]),  # type: ignore[misc]
        )
        print(f"  AUC {who} {area}; right among the best 80 % {accepted_precision(score, is_right, 0.8):.3f}")
    errors = (("p_right", said.right_N, right), ("expected IoU", said.expected_iou_N, some.iou_N))
    for who, told, true in errors:
        ends = interval(
            some.picture_N,
            lambda rows, told=told, true=true: calibration_error(told[rows], true[rows]),  # type: ignore[misc]
        )
        print(f"  calibration error of {who} {ends}")
    print(f"  calibration error of predicted IoU as IoU {calibration_error(predicted, some.iou_N):.3f}")

    labelled = [one for one in judged if len(one.truth.masks_NHW)]
    found = [verifier(one.image, pixels_HWC=one.truth.image, embedding=one.embedding) for one in labelled]
    shares = np.array([one.share_found for one in found], np.float32)
    recalls = np.array([one.recall() for one in labelled], np.float32)
    print(f"  share found {shares.mean():.3f}, true {recalls.mean():.3f}, ", end="")
    print(f"rank correlation {rank_correlation(shares, recalls):.3f}")


def cost(judged: Sequence[Judged], verifier: Verifier, segmenter: SamSegmenter) -> None:
    """Prints CPU seconds of judging against those of masks; some pictures' are made once more, in turn."""
    stage, seconds = AutomaticMasks(segmenter, NANO), [0.0, 0.0]
    for one in judged[:: -(-len(judged) // COSTED)]:
        begun = time.process_time()
        stage([one.truth.image])
        made = time.process_time()
        verifier(one.image, pixels_HWC=one.truth.image, embedding=one.embedding)
        seconds[0] += made - begun
        seconds[1] += time.process_time() - made
    masks, judging = seconds
    print(f"cost by CPU: masks {masks:.2f} s, verdicts {judging:.3f} s, {judging / masks:.1%}")


def main() -> None:
    """Read the command line, make masks, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, nargs=2, metavar=("COCO", "IMAGES"))
    parser.add_argument("--nuclei", type=Path, nargs=2, metavar=("COCO", "IMAGES"))
    parser.add_argument("--scenes", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = SamSegmenter(load_nano(), device="cpu")
    verifier = load_verifier(None, weights_identity(SegmenterSettings()))
    print("calibrated for these weights:", verifier.is_calibrated)

    held = [HELD_BACK_SEED + place for place in range(given.scenes)]
    truths = [one for place, seed in enumerate(held) for one in scenes([seed], SCENE_SIDES[place % 2])]
    sets = [("held-back scenes", truths, True)] if truths else []
    sets += [("nuclei", read_photographs(*given.nuclei), True)] if given.nuclei else []
    sets += [("photographs", read_photographs(*given.photos), False)] if given.photos else []
    for name, pictures, complete in sets:
        judged = list(judge(segmenter, NANO, pictures))
        report(name, judged, verifier, complete=complete)
        cost(judged, verifier, segmenter)


if __name__ == "__main__":
    main()
