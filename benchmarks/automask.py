"""The grid-mask stage against the public generator: speed, agreement, memory.

    python -m benchmarks.automask --segmenter nano --size 640x480 --runs 3 --json
    python -m benchmarks.automask --segmenter vit_b --size 1500x2250 --dtype float32,bfloat16 --image A B

Both sides have the same model, settings and image and give COCO run lengths. Runs are paired (reference, then
ours in each number format) because the machine's speed drifts; `speedup` is the median of the pairs' ratios
of wall time, `speedup_cpu` that of the process's CPU time, the fairer one on a busy machine. The reference is
in float32 always. Several images take turns: run i has image i, modulo their number. Memory is measured
first, before the reference has run in the process: peak resident bytes above what is held with the model
loaded and the photograph decoded (on CUDA: peak allocated above it).

Masks are paired by IoU. Each mask that one side lacks is listed with its distance to the nearest threshold
(predicted IoU, stability, coverage, and box IoU to the other masks for NMS).

ViT-B has random weights unless --weights names a checkpoint: `adjust_heads` (pipeline/reference.py) makes its
masks pass the thresholds, and `share_passing` says which part of all masks passes predicted IoU. nano has
its own weights and, with every recipe, its own recipe's thresholds of predicted IoU and stability
(`thresholds`). `floor_share` sets each step's counted arithmetic, at the speed of a large product
(`peak_gflops`), against its time: see floor.py. With several formats the result is the first one's, the
others' are under `also`.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from segment_anything.build_sam import sam_model_registry

from benchmarks.floor import against_floor, count_gflop
from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.masks.automask import AutomaticMasks, warm_up
from maskmill.pipeline.prove.pairs import Pairing, merge, pair_up
from maskmill.pipeline.prove.spent import with_peak_bytes
from maskmill.pipeline.reference import ReferenceGenerator, adjust_heads
from maskmill.pipeline.segmenters.sam import SamSegmenter, build_sam
from maskmill.pipeline.segmenters.student import load_student
from maskmill.pipeline.settings import FAST, NANO, SA1B, MaskSettings
from maskmill.pipeline.weights import weights

RECIPES = {"fast": FAST, "sa1b": SA1B, "nano": NANO}

Photo = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Spent:
    """Seconds of one call, and by step."""

    wall: float
    cpu: float
    by_step: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison and prints it."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    images = [load_image(path, options.size) for path in options.image or [None]]
    sam, note = load_sam(options, images[0])
    result = compare(sam, images, options)
    result["weights"] = note
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24} {value}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.automask")
    parser.add_argument("--segmenter", choices=("nano", "vit_b", "vit_l", "vit_h"), default="nano")
    parser.add_argument("--weights", type=Path, help="checkpoint; without it nano's own, or random ones")
    parser.add_argument("--input-size", type=int, help="nano's weights on a larger square input, in px")
    parser.add_argument("--size", type=_size, default=(640, 480), metavar="WIDTHxHEIGHT|native")
    parser.add_argument("--image", type=Path, nargs="+", help="resized to --size; else scikit-image's coffee")
    parser.add_argument("--dtype", type=_dtypes, default=["float32"], help="one of them or both, by comma")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="fast")
    parser.add_argument("--points-per-side", type=int, help="for a shorter run than the recipe's")
    parser.add_argument("--adjust-heads", action="store_true", help="whatever the weights, let masks pass")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--reference-points-per-batch", type=int, default=64)
    parser.add_argument("--no-reference", action="store_true", help="time and memory of ours alone")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _size(text: str) -> tuple[int, int] | None:
    if text == "native":
        return None
    width, _, height = text.partition("x")
    return int(width), int(height)


def _dtypes(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= {"float32", "bfloat16"}:
        raise argparse.ArgumentTypeError(f"{text!r}: use float32, bfloat16 or float32,bfloat16")
    return names


def load_image(path: Path | None, size: tuple[int, int] | None) -> Photo:
    """uint8[H, W, 3] of the size; scikit-image's coffee cup without a path."""
    picture = Image.open(path or str(files("skimage.data") / "coffee.png")).convert("RGB")
    return np.array(picture.resize(size, Image.Resampling.LANCZOS) if size else picture)


def load_sam(options: argparse.Namespace, image: Photo) -> tuple[Any, str]:
    """The model in float32 on the CPU, and what its weights are."""
    path = options.weights
    adjust = options.adjust_heads
    if options.segmenter == "nano":
        path = path or weights.NANO_WEIGHTS
        sam, note = load_student(path), f"{path.name} {weights.sha256_of(path)[:12]}"
        if options.input_size:
            sam, note = _widened(sam, path, options.input_size), f"{note} at {options.input_size} px"
    elif path:
        sam, note = build_sam(options.segmenter, weights.read_tensors(path), path), path.name
    else:
        torch.manual_seed(0)
        sam, note, adjust = sam_model_registry[options.segmenter](), "random", True
    if adjust:
        adjust_heads(sam, np.array(Image.fromarray(image).resize((256, 256))))
        note += ", heads adjusted"
    return sam, note


def _widened(sam: Any, path: Path, image_size: int) -> Any:
    """nano's weights, which are free of sizes, behind a larger input."""
    from maskmill.pipeline.segmenters.student import build_student, stored_config

    wide = build_student(dataclasses.replace(stored_config(path), image_size=image_size))
    wide.load_state_dict(sam.state_dict())
    return wide


def settings_of(options: argparse.Namespace) -> MaskSettings:
    """The recipe's, with nano's own thresholds for nano."""
    settings = RECIPES[options.recipe]
    if options.segmenter == "nano" and not options.adjust_heads:
        settings = dataclasses.replace(settings, predicted_iou=NANO.predicted_iou, stability=NANO.stability)
    if options.points_per_side:
        settings = dataclasses.replace(settings, points_per_side=options.points_per_side)
    return settings


def compare(sam: Any, images: Sequence[Photo], options: argparse.Namespace) -> dict[str, Any]:
    """Runs both sides; see the file's head."""
    settings = settings_of(options)
    warm_up()
    stages, peaks, gflop, shares = {}, {}, {}, {}
    for dtype in options.dtype:
        own = sam if dtype == "float32" else copy.deepcopy(sam)  # the reference stays in float32
        segmenter = SamSegmenter(own, device=options.device, dtype=dtype)
        stages[dtype] = AutomaticMasks(segmenter, settings)
        stages[dtype]([images[0][:64, :64]])  # fills caches
        _, peaks[dtype] = with_peak_bytes(partial(stages[dtype], images[:1]))
        gflop[dtype], shares[dtype] = count_gflop(segmenter, images[0], settings)
    reference = Reference(
        sam, dataclasses.replace(settings, points_per_batch=options.reference_points_per_batch)
    )
    spent: dict[str, list[Spent]] = {name: [] for name in ("reference", *stages)}
    agreed: dict[str, list[Pairing]] = {dtype: [] for dtype in stages}
    for run in range(options.runs):
        image = images[run % len(images)]
        theirs = None
        if not options.no_reference:
            theirs, seconds = timed(partial(reference.annotate, image), reference.by_step)
            spent["reference"].append(seconds)
        for dtype, stage in stages.items():
            (ours,), seconds = timed(partial(stage, [image]))
            spent[dtype].append(dataclasses.replace(seconds, by_step=dict(ours.seconds_by_step)))
            theirs = theirs or ours  # without the reference, the first format's masks stand for it
            agreed[dtype].append(pair_up(ours, theirs, settings))
        _tell(run, spent)
    results = [
        {
            "segmenter": options.segmenter,
            "size": "x".join(map(str, options.size)) if options.size else "native",
            "recipe": options.recipe,
            "points_per_side": settings.points_per_side,
            "thresholds": [settings.predicted_iou, settings.stability],
            "images": min(len(images), options.runs),
            "dtype": dtype,
            **speed(spent["reference"], spent[dtype]),
            **_floor(gflop[dtype], spent[dtype], dtype, settings),
            "peak_bytes": peaks[dtype],
            "share_passing": shares[dtype],
            **_agreed(merge(agreed[dtype])),
        }
        for dtype in stages
    ]
    return {
        **results[0],
        "device": str(choose_device(options.device)),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "also": results[1:],
    }


def _agreed(found: Pairing) -> dict[str, Any]:
    """How the masks agree, as a results page tells it."""
    ious = found.pair_ious
    return {
        "masks_reference": found.masks_reference,
        "masks_ours": found.masks_ours,
        "pairs": len(ious),
        "min_iou": found.min_iou,
        "mean_iou": round(float(np.mean(ious)), 6) if ious else None,
        "pairs_below_0.9999": len(ious) - found.pairs_equal,
        "boxes_equal": found.boxes_equal,
        "max_stability_px": round(found.max_stability_px, 2),
        "farthest_from_threshold": found.farthest_from_threshold,
        "only_reference": [dataclasses.asdict(mask) for mask in found.only_reference],
        "only_ours": [dataclasses.asdict(mask) for mask in found.only_ours],
    }


def _floor(
    gflop: dict[str, float], spent: Sequence[Spent], dtype: str, settings: MaskSettings
) -> dict[str, Any]:
    """See benchmarks/floor.py; nothing with crops, whose arithmetic is not counted."""
    return {} if settings.crop_layers else against_floor(gflop, _median_steps(spent), getattr(torch, dtype))


class Reference:
    """The public generator, with the seconds of its model's parts."""

    def __init__(self, sam: Any, settings: MaskSettings) -> None:
        self._generator = ReferenceGenerator(sam, settings)
        self.by_step: dict[str, float] = {}
        postprocess = sam.postprocess_masks
        sam.postprocess_masks = lambda *a, **k: self._clocked("upsample", lambda: postprocess(*a, **k))
        predictor = self._generator.predictor
        for name, method in (("embed", "set_image"), ("predict", "predict_torch")):
            inner = getattr(predictor, method)
            setattr(predictor, method, self._wrapped(name, inner))

    def annotate(self, image: Photo) -> AnnotatedImage:
        """As the generator; `by_step` is this image's afterwards."""
        self.by_step.clear()
        return self._generator.annotate(image)

    def _wrapped(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._clocked(name, lambda: inner(*args, **kwargs))

    def _clocked(self, name: str, work: Callable[[], Any]) -> Any:
        start_s = time.perf_counter()
        result = work()
        self.by_step[name] = self.by_step.get(name, 0.0) + time.perf_counter() - start_s
        return result


def timed(work: Callable[[], Any], by_step: dict[str, float] | None = None) -> tuple[Any, Spent]:
    """The result, and what it took; `by_step` is filled by `work`."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    steps = dict(by_step or {})
    if "predict" in steps:  # the predictor's call is the decoder and the upsampling
        steps["decode"] = steps.pop("predict") - steps["upsample"]
        steps["filter_and_encode"] = wall - sum(steps.values())
    return result, Spent(wall, cpu, steps)


def speed(reference: Sequence[Spent], ours: Sequence[Spent]) -> dict[str, Any]:
    """Medians of paired ratios and of seconds."""
    pairs = list(zip(reference, ours, strict=False))
    wall = [slow.wall / fast.wall for slow, fast in pairs]
    cpu = [slow.cpu / fast.cpu for slow, fast in pairs]
    return {
        "speedup": round(statistics.median(wall), 2) if pairs else None,
        "speedup_cpu": round(statistics.median(cpu), 2) if pairs else None,
        "ratios": [round(ratio, 2) for ratio in wall],
        "ratios_cpu": [round(ratio, 2) for ratio in cpu],
        "seconds_reference": _median([spent.wall for spent in reference]),
        "seconds_ours": _median([spent.wall for spent in ours]),
        "cpu_seconds_ours": _median([spent.cpu for spent in ours]),
        "seconds": _median_steps(ours),
        "seconds_reference_by_step": _median_steps(reference),
    }


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 4) if values else None


def _median_steps(spent: Sequence[Spent]) -> dict[str, float | None]:
    return {
        name: _median([one.by_step.get(name, 0.0) for one in spent]) for name in (spent or _NONE)[0].by_step
    }


_NONE = [Spent(0.0, 0.0, {})]


def _tell(run: int, spent: dict[str, list[Spent]]) -> None:
    last = {name: round(values[-1].wall, 2) for name, values in spent.items() if values}
    print(f"run {run}: seconds {last}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
