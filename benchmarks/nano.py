"""How good nano is: `python -m benchmarks.nano [--scenes 500] [--coco FILE --images DIR] [--believe]
[--automatic] [--sweep 0] [--json]`.

Each mask's deepest pixel goes in and three masks come out; the figures are the mean IoU of the best of the
three and of the one with the highest predicted IoU, over held-back generated scenes and, where given, over
COCO-format ground truth (crowds left out). Over the latter, `--believe` asks for each mask by ten random
points and holds predicted against true IoU, and `--automatic` makes masks by the nano recipe and judges
those that lie in labelled area. `--sweep N` instead asks a point grid over N held-back scenes and prints
precision and recall for pairs of thresholds. `--pictures DIR` saves a few pictures with the best answers
drawn in. (Boxes and nine clicks: `maskmill evaluate --segmenter nano`.)"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from skimage.segmentation import find_boundaries

from maskmill.flows.config import load_config
from maskmill.pipeline.evaluate.automatic import automatic_figures
from maskmill.pipeline.evaluate.believed import ask_points, belief_figures
from maskmill.pipeline.evaluate.points import Pictured, held_back_scenes, measure_points
from maskmill.pipeline.evaluate.proposals import candidates_of, sweep
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_nano, load_student
from maskmill.pipeline.train.nano.pictures.photographs import read_photographs
from maskmill.pipeline.train.nano.thresholds import masks_of
from maskmill.pipeline.train.prompts import centre_point

COLOURS = np.array(
    [[230, 60, 60], [60, 180, 75], [70, 110, 235], [245, 190, 40], [190, 70, 220], [60, 200, 210]]
)


def draw_answers(sam: Sam, picture: Pictured, most: int = 30) -> NDArray[np.uint8]:
    """The picture with true outlines in white and the best answer to each centre point in colour."""
    predictor = SamPredictor(sam)
    predictor.set_image(picture.image)
    drawn = picture.image.astype(np.float32)
    for i, truth in enumerate(picture.masks_NHW[:most]):
        masks, _, _ = predictor.predict(np.array([centre_point(truth)]), np.ones(1), multimask_output=True)
        overlap = [(mask & truth).sum() / (mask | truth).sum() for mask in masks]
        best = masks[int(np.argmax(overlap))]
        drawn[best] = 0.5 * drawn[best] + 0.5 * COLOURS[i % len(COLOURS)]
        drawn[find_boundaries(truth, mode="inner")] = 255  # type: ignore[no-untyped-call]
    return drawn.astype(np.uint8)


def print_sweep(sam: Sam, scenes: int, points_per_side: int) -> None:
    """Precision and recall of a point grid's masks for pairs of thresholds."""
    asked = [candidates_of(sam, scene, points_per_side) for scene in held_back_scenes(scenes)]
    print("predicted_iou stability masks/scene precision@.5 recall@.5 precision@.75 recall@.75 F@.5 F@.75")
    for row in sweep(asked):
        at_50 = f"{row.precision_50:12.3f} {row.recall_50:9.3f}"
        at_75 = f"{row.precision_75:13.3f} {row.recall_75:10.3f}"
        head = f"{row.predicted_iou:13.2f} {row.stability:9.2f} {row.masks_per_picture:11.1f}"
        print(f"{head} {at_50} {at_75} {row.f_50:.3f} {row.f_75:.3f}")


def of_photographs(
    sam: Sam, photographs: list[Truth], name: str, believe: bool, automatic: bool
) -> dict[str, dict[str, Any]]:
    """Figures on labelled photographs, by name."""
    results: dict[str, dict[str, Any]] = {name: asdict(measure_points(sam, photographs))}
    segmenter = SamSegmenter(copy.deepcopy(sam), device="cpu")
    if believe:
        results[f"{name}, believed"] = asdict(belief_figures(ask_points(segmenter, photographs)))
    if automatic:
        stage = AutomaticMasks(segmenter, load_config("nano").masks)
        masks = [masks_of(stage([one.image])[0]) for one in photographs]
        results[f"{name}, automatic"] = asdict(automatic_figures(masks, photographs))
        results[f"{name}, automatic"]["masks_by_picture"] = [len(some) for some in masks]
    return results


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return str(value) if isinstance(value, list) else f"{value:.4g}"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=500, help="held-back scenes; 0 for none")
    parser.add_argument("--coco", type=Path, help="COCO-format ground truth")
    parser.add_argument("--images", type=Path, help="its pictures")
    parser.add_argument("--weights", type=Path, help="a student's weights instead of the shipped ones")
    parser.add_argument("--believe", action="store_true", help="predicted against true IoU, on --coco")
    parser.add_argument("--automatic", action="store_true", help="masks by the recipe, on --coco")
    parser.add_argument("--sweep", type=int, default=0, help="scenes for the threshold table")
    parser.add_argument("--points-per-side", type=int, default=16, help="grid of the threshold table")
    parser.add_argument("--pictures", type=Path, help="folder for a few drawn answers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if (given.coco is None) != (given.images is None):
        parser.error("--coco and --images go together")
    sam = load_student(given.weights) if given.weights else load_nano()
    if given.sweep:
        print_sweep(sam, given.sweep, given.points_per_side)
        return
    results: dict[str, dict[str, Any]] = {}
    begun = time.perf_counter()
    if given.scenes:
        results["scenes"] = asdict(measure_points(sam, held_back_scenes(given.scenes)))
    if given.coco:
        photographs = read_photographs(given.coco, given.images)
        results |= of_photographs(sam, photographs, given.coco.stem, given.believe, given.automatic)
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
        shown: Iterator[Pictured] = held_back_scenes(12)
        if given.coco:
            shown = iter(read_photographs(given.coco, given.images))
        for i, picture in zip(range(12), shown, strict=False):
            Image.fromarray(draw_answers(sam, picture)).save(given.pictures / f"{i:02d}.png")
    if given.json:
        print(json.dumps({"torch": torch.__version__, "seconds": time.perf_counter() - begun, **results}))
        return
    for name, figures in results.items():
        print(name, " ".join(f"{key}={_shown(value)}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
