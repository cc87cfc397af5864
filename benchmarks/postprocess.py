"""From low-resolution logits to measures, run lengths and cleaned masks: ours against the public functions.

    python -m benchmarks.postprocess --size 1500x2250 --masks 12 --runs 5 --clock cpu --json

Three steps, each timed per mask on one thread, in pairs (reference, then ours) because the machine's speed
drifts; a figure is the median of a side's runs, `speedup` the median of the pairs' ratios:

* measure: upsampled logits -> area, stability counts, box. Reference: Sam.postprocess_masks (its two
  interpolations), calculate_stability_score, the threshold, batched_mask_to_box.
* runs: the mask as compressed run lengths. Reference: mask_to_rle_pytorch and coco_encode_rle of the mask it
  already has; ours starts again from the low-resolution logits.
* clean: holes, then islands below 100 px. Reference: rle_to_mask, remove_small_regions twice,
  mask_to_rle_pytorch when changed, coco_encode_rle, as postprocess_small_regions does; `clean_labels` counts
  of that the two calls of remove_small_regions alone.

The logits are made: wavy discs of several sizes with sharp or soft edges and specks, and (last) pure noise,
the worst case. `unequal` counts masks whose area, box or run lengths differ at all.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything.utils import amg
from torch.nn import functional

from maskmill.pipeline.frame import Frame
from maskmill.pipeline.masks.regions import clean
from maskmill.pipeline.masks.upsample import measure, runs_batch
from maskmill.pipeline.rle import Rle

Floats = npt.NDArray[np.float32]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
KINDS = {"small": (12, 2.0), "medium": (30, 1.0), "large": (70, 1.0), "soft": (30, 0.25), "noise": (0, 0.0)}
MIN_AREA_PX = 100
LOW = 256
IMAGE_SIZE = 1024


def make_logits(kind: str, num_masks: int, frame: Frame, rng: np.random.Generator) -> Floats:
    """float32[N, 256, 256]: discs of a radius and an edge slope (logits a low-resolution px), with specks."""
    radius, slope = KINDS[kind]
    if radius == 0:
        return rng.standard_normal((num_masks, LOW, LOW)).astype(np.float32)
    ys, xs = np.mgrid[:LOW, :LOW].astype(np.float32)
    maps = []
    for _ in range(num_masks):
        y = ys - rng.uniform(0.1, 0.9) * LOW * frame.input_height / IMAGE_SIZE
        x = xs - rng.uniform(0.1, 0.9) * LOW * frame.input_width / IMAGE_SIZE
        edge = radius * (1 + 0.2 * np.sin(5 * np.arctan2(y, x) + rng.uniform(0, 6))) - np.hypot(y, x)
        map_HW = np.clip(edge * slope, -15, 15) + 0.2 * rng.standard_normal((LOW, LOW))
        specks = rng.integers(0, LOW, (2, 12))
        map_HW[specks[0], specks[1]] *= -1  # islands outside, holes inside
        maps.append(map_HW.astype(np.float32))
    return np.stack(maps)


def upsample_reference(logits_NHW: Floats, frame: Frame) -> torch.Tensor:
    """Sam.postprocess_masks on three masks at a time, as one prompt's multimask output."""
    logits = torch.from_numpy(logits_NHW).reshape(-1, 3, LOW, LOW)
    logits = functional.interpolate(logits, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)
    logits = logits[..., : frame.input_height, : frame.input_width]
    size = (frame.crop_height, frame.crop_width)
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False).flatten(0, 1)


def measure_reference(logits_NHW: Floats, frame: Frame) -> tuple[torch.Tensor, torch.Tensor]:
    """The masks and their boxes."""
    logits = upsample_reference(logits_NHW, frame)
    amg.calculate_stability_score(logits, 0.0, 1.0)
    masks = logits > 0.0
    return masks, amg.batched_mask_to_box(masks)


def encode_reference(masks: torch.Tensor) -> list[dict[str, Any]]:
    return [amg.coco_encode_rle(rle) for rle in amg.mask_to_rle_pytorch(masks)]


def label_reference(mask_HW: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], bool]:
    mask_HW, filled = amg.remove_small_regions(mask_HW, MIN_AREA_PX, "holes")
    mask_HW, removed = amg.remove_small_regions(mask_HW, MIN_AREA_PX, "islands")
    return mask_HW, filled or removed


def clean_reference(uncompressed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cleaned = []
    for rle in uncompressed:
        mask_HW, changed = label_reference(amg.rle_to_mask(rle))
        if changed:
            rle = amg.mask_to_rle_pytorch(torch.from_numpy(mask_HW)[None])[0]
        cleaned.append(amg.coco_encode_rle(rle))
    return cleaned


def paired(
    reference: Callable[[], object], ours: Callable[[], object], *, runs: int, per: int, clock: str
) -> dict[str, float]:
    """Medians in ms per mask; one run of each is not counted."""
    times: list[tuple[float, float]] = []
    for _ in range(runs + 1):
        pair = []
        for side in (reference, ours):
            start = CLOCKS[clock]()
            side()
            pair.append((CLOCKS[clock]() - start) * 1e3 / per)
        times.append((pair[0], pair[1]))
    del times[0]
    return {
        "reference_ms": round(statistics.median(first for first, _ in times), 3),
        "ours_ms": round(statistics.median(second for _, second in times), 4),
        "speedup": round(statistics.median(first / second for first, second in times), 1),
    }


def compare(kind: str, frame: Frame, args: argparse.Namespace) -> dict[str, Any]:
    """All steps on one kind of masks."""
    logits_NHW = make_logits(kind, args.masks, frame, np.random.default_rng(args.seed))
    masks, boxes = measure_reference(logits_NHW, frame)
    uncompressed = amg.mask_to_rle_pytorch(masks)
    masks_NHW = masks.numpy()
    rles = runs_batch(logits_NHW, frame, threads=1)
    measures = measure(logits_NHW, frame, threads=1)
    encoded, cleaned = encode_reference(masks), clean_reference(uncompressed)
    unequal = {
        "area": int((masks_NHW.sum((1, 2)) != measures.area_px).sum()),
        "box": int((boxes.numpy() != measures.box_xyxy).any(1).sum()),
        "runs": sum(Rle.from_coco(theirs) != rle for theirs, rle in zip(encoded, rles, strict=True)),
        "clean": sum(
            Rle.from_coco(theirs) != mask.rle
            for theirs, mask in zip(cleaned, clean(rles, MIN_AREA_PX, threads=1), strict=True)
        ),
    }
    sides: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "measure": (
            lambda: measure_reference(logits_NHW, frame),
            lambda: measure(logits_NHW, frame, threads=1),
        ),
        "runs": (lambda: encode_reference(masks), lambda: runs_batch(logits_NHW, frame, threads=1)),
        "clean": (lambda: clean_reference(uncompressed), lambda: clean(rles, MIN_AREA_PX, threads=1)),
        "clean_labels": (
            lambda: [label_reference(mask_HW) for mask_HW in masks_NHW],
            lambda: clean(rles, MIN_AREA_PX, threads=1),
        ),
    }
    steps = {
        name: paired(*both, runs=args.runs, per=args.masks, clock=args.clock) for name, both in sides.items()
    }
    return {"mean_area_px": int(measures.area_px.mean()), "steps": steps, "unequal": unequal}


def print_table(report: dict[str, Any]) -> None:
    print("| masks | mean area | step | reference, ms a mask | ours, ms a mask | speedup | unequal |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for kind, result in report["kinds"].items():
        for step, row in result["steps"].items():
            unequal = result["unequal"]["clean"] if step == "clean_labels" else result["unequal"].get(step)
            if step == "measure":
                unequal = result["unequal"]["area"] + result["unequal"]["box"]
            print(
                f"| {kind} | {result['mean_area_px']} | {step} | {row['reference_ms']:.1f} "
                f"| {row['ours_ms']:.3f} | {row['speedup']:.0f} | {unequal} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="1500x2250", help="the photo's height x width in px")
    parser.add_argument("--masks", type=int, default=12, help="masks of each kind, a multiple of 3")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: the process's CPU time")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.masks % 3 or args.masks < 3:
        parser.error("--masks must be a multiple of 3: the reference upsamples three masks a prompt")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    height, width = (int(side) for side in args.size.split("x"))
    frame = Frame.of_image(IMAGE_SIZE, height=height, width=width)
    packages = ("torch", "numpy", "numba", "opencv-python-headless", "pycocotools", "segment-anything")
    report = {
        "size": args.size,
        "masks": args.masks,
        "runs": args.runs,
        "clock": args.clock,
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "kinds": {kind: compare(kind, frame, args) for kind in args.kinds},
    }
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print_table(report)


if __name__ == "__main__":
    main()
