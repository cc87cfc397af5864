"""The grid-mask stage against the public generator: speed, agreement, memory.

    python -m benchmarks.automask --segmenter nano --size 640x480 --runs 3 --json

Both sides have the same model, settings and image and give COCO run lengths. Runs are paired
(reference, then ours) because the machine's speed drifts; `speedup` is the median of the pairs' ratios.
With --clock cpu the ratio is of the process's CPU time, the fairer one for a single thread on a busy
machine. Memory is measured first, before the reference has run in the process: peak resident bytes
above what is held with the model loaded (on CUDA: peak allocated above it).

Unequal counts are explained: each mask that one side lacks is listed with its distance to
the nearest threshold (predicted IoU, stability, and box IoU to the other masks for NMS).

ViT-B has random weights unless --weights names a checkpoint: `pipeline.reference.adjust_heads` makes
its masks pass the thresholds, and `share_passing` says which part of all masks passes predicted IoU.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment
from segment_anything.build_sam import sam_model_registry

from pipeline import weights
from pipeline.annotation import AnnotatedImage, Annotation
from pipeline.automask import AutomaticMasks
from pipeline.config import FAST, SA1B, MaskSettings
from pipeline.reference import ReferenceGenerator, adjust_heads
from pipeline.segmenters.sam import SamSegmenter, build_sam, choose_device
from pipeline.segmenters.student import load_student

NANO = MaskSettings(  # as the nano recipe sets them
    points_per_side=16, predicted_iou=0.7, stability=0.85, min_area_px=25, max_coverage=0.95, drop_small=True
)
RECIPES = {"fast": FAST, "sa1b": SA1B, "nano": NANO}
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
PAIR_IOU = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison and prints it."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    image = load_image(options.image, options.size)
    sam, weights_note = load_sam(options.segmenter, options.weights, image)
    if options.adjust_heads:
        adjust_heads(sam, np.array(Image.fromarray(image).resize((256, 256))))
        weights_note += ", heads adjusted"
    result = compare(sam, image, options)
    result["weights"] = weights_note
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24} {value}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.automask")
    parser.add_argument("--segmenter", choices=("nano", "vit_b", "vit_l", "vit_h"), default="nano")
    parser.add_argument("--weights", type=Path, help="checkpoint; without it nano's own, or random ones")
    parser.add_argument("--size", type=_size, default=(640, 480), metavar="WIDTHxHEIGHT")
    parser.add_argument("--image", type=Path, help="resized to --size; without it scikit-image's coffee")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="fast")
    parser.add_argument("--points-per-side", type=int, help="for a shorter run than the recipe's")
    parser.add_argument("--adjust-heads", action="store_true", help="whatever the weights, let masks pass")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--reference-points-per-batch", type=int, default=64)
    parser.add_argument("--no-reference", action="store_true", help="time and memory of ours alone")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu where others share it")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def load_image(path: Path | None, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3] of the size; scikit-image's coffee cup without a path."""
    if path is None:
        picture = Image.open(str(files("skimage.data") / "coffee.png")).convert("RGB")
    else:
        picture = Image.open(path).convert("RGB")
    return np.array(picture.resize(size, Image.Resampling.LANCZOS))


def load_sam(name: str, path: Path | None, image: npt.NDArray[np.uint8]) -> tuple[Any, str]:
    """The model in float32 on the CPU, and what its weights are."""
    if name == "nano":
        if path or weights.NANO_WEIGHTS.is_file():
            return load_student(path or weights.NANO_WEIGHTS), str((path or weights.NANO_WEIGHTS).name)
        raise weights.MissingWeights(f"{weights.NANO_WEIGHTS} does not exist: train nano, or give --weights")
    if path:
        return build_sam(name, weights.read_tensors(path), path), path.name
    torch.manual_seed(0)
    sam = sam_model_registry[name]()
    adjust_heads(sam, np.array(Image.fromarray(image).resize((256, 256))))
    return sam, "random, heads adjusted"


def compare(sam: Any, image: npt.NDArray[np.uint8], options: argparse.Namespace) -> dict[str, Any]:
    """Runs both sides; see the file's head."""
    settings = RECIPES[options.recipe]
    if options.points_per_side:
        settings = dataclasses.replace(settings, points_per_side=options.points_per_side)
    own = sam if options.dtype == "float32" else copy.deepcopy(sam)  # the reference stays in float32
    segmenter = SamSegmenter(own, device=options.device, dtype=options.dtype)
    small = MaskSettings(points_per_side=2, points_per_batch=1, min_area_px=10)
    AutomaticMasks(segmenter, small)([np.ascontiguousarray(image[:64, :64])])  # compiles, fills caches
    stage = AutomaticMasks(segmenter, settings)
    (ours,), peak_bytes = with_peak_bytes(lambda: stage([image]))
    reference_settings = dataclasses.replace(settings, points_per_batch=options.reference_points_per_batch)
    reference = ReferenceGenerator(sam, reference_settings)
    seconds_ours, seconds_reference = [], []
    clock = CLOCKS[options.clock]
    theirs = ours
    for _ in range(options.runs):
        if not options.no_reference:
            seconds, theirs = _timed(lambda: reference.annotate(image), clock)
            seconds_reference.append(seconds)
        seconds, (ours,) = _timed(lambda: stage([image]), clock)
        seconds_ours.append(seconds)
    ratios = [slow / fast for slow, fast in zip(seconds_reference, seconds_ours, strict=False)]
    return {
        "segmenter": options.segmenter,
        "size": "x".join(map(str, options.size)),
        "recipe": options.recipe,
        "points_per_side": settings.points_per_side,
        "dtype": options.dtype,
        "speedup": round(statistics.median(ratios), 2) if ratios else None,
        "ratios": [round(ratio, 2) for ratio in ratios],
        "seconds_reference": round(statistics.median(seconds_reference), 3) if ratios else None,
        "seconds_ours": round(statistics.median(seconds_ours), 3),
        "peak_bytes": peak_bytes,
        "seconds_by_step": {name: round(value, 3) for name, value in ours.seconds_by_step.items()},
        "share_passing": share_passing(sam, image, settings),
        **agreement(ours, theirs, settings),
        "clock": options.clock,
        "device": str(choose_device(options.device)),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def _timed(work: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, Any]:
    start_s = clock()
    result = work()
    return clock() - start_s, result


def with_peak_bytes(work: Callable[[], Any]) -> tuple[Any, int]:
    """The result, and peak memory while it was made above what was held before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        result = work()
        return result, torch.cuda.max_memory_allocated() - held
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory freed but not given back would hide the peak
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    held = _status_bytes("VmRSS")
    result = work()
    return result, _status_bytes("VmHWM") - held


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def share_passing(sam: Any, image: npt.NDArray[np.uint8], settings: MaskSettings) -> float:
    """Which part of the masks of an 8x8 grid passes predicted IoU."""
    from segment_anything import SamPredictor
    from segment_anything.utils.amg import build_point_grid

    small = np.array(Image.fromarray(image).resize((image.shape[1] // 4, image.shape[0] // 4)))
    predictor = SamPredictor(sam)
    predictor.set_image(small)
    points = build_point_grid(8) * np.array([small.shape[1], small.shape[0]])
    prompts = torch.as_tensor(predictor.transform.apply_coords(points, small.shape[:2]))[:, None]
    labels = torch.ones(len(points), 1, dtype=torch.int)
    _, predicted_iou_PM, _ = predictor.predict_torch(prompts.to(sam.device), labels.to(sam.device))
    return round(float((predicted_iou_PM > settings.predicted_iou).float().mean()), 3)


def agreement(ours: AnnotatedImage, theirs: AnnotatedImage, settings: MaskSettings) -> dict[str, Any]:
    """Counts, the worst pair's IoU, equal boxes, and the masks that one side lacks."""
    iou_OT = pair_ious(ours.annotations, theirs.annotations)
    rows, columns = linear_sum_assignment(-iou_OT)
    pairs = [(i, j) for i, j in zip(rows, columns, strict=True) if iou_OT[i, j] > PAIR_IOU]
    alone = set(range(len(ours.annotations))) - {i for i, _ in pairs}
    missed = set(range(len(theirs.annotations))) - {j for _, j in pairs}
    same_box = [ours.annotations[i].bbox_xywh == theirs.annotations[j].bbox_xywh for i, j in pairs]
    return {
        "masks_reference": len(theirs.annotations),
        "masks_ours": len(ours.annotations),
        "min_iou": min((float(iou_OT[pair]) for pair in pairs), default=None),
        "boxes_equal": sum(same_box),
        "pairs": len(pairs),
        "only_reference": [explain(theirs.annotations[place], theirs, settings) for place in sorted(missed)],
        "only_ours": [explain(ours.annotations[place], ours, settings) for place in sorted(alone)],
    }


def pair_ious(first: Sequence[Annotation], second: Sequence[Annotation]) -> npt.NDArray[np.float64]:
    """float64[len(first), len(second)]."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    coded = [[annotation.segmentation.to_coco() for annotation in side] for side in (first, second)]
    ious: npt.NDArray[np.float64] = coco.iou(coded[0], coded[1], [0] * len(second))
    return ious


def explain(mask: Annotation, image: AnnotatedImage, settings: MaskSettings) -> dict[str, Any]:
    """A mask's distances to the thresholds that may have dropped it on the other side."""
    boxes = [list(other.bbox_xywh) for other in image.annotations if other is not mask]
    box_ious = coco.iou([list(mask.bbox_xywh)], boxes, [0] * len(boxes))[0] if boxes else [0.0]
    distances = {
        "predicted_iou": abs(mask.predicted_iou - settings.predicted_iou),
        "stability": abs(mask.stability_score - settings.stability),
        "box_nms": min(abs(float(iou) - settings.box_nms) for iou in box_ious),
    }
    return {
        "bbox_xywh": mask.bbox_xywh,
        "area_px": mask.area_px,
        "distance_to_threshold": min(distances.values()),
        **{name: round(value, 7) for name, value in distances.items()},
    }


if __name__ == "__main__":
    main()
