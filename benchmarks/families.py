"""Every SAM's grid masks beside its peer's: equal masks, and how many times sooner.

    python -m benchmarks.families --family sam2_tiny,sam2_base_plus,sam_hq_b --size 640x480,1500x2250 --runs 3

Peers: for SAM 2 the sam2 package's `SAM2AutomaticMaskGenerator`, for SAM-HQ segment-anything-hq's
`SamAutomaticMaskGenerator`, each with its own
rules and the same thresholds. Weights are random, heads adjusted until masks pass (`adjust_family`); the peer
shares them. Runs are paired, the peer first; `speedup` is the median of the pairs' ratios of wall time. Masks
are paired by IoU: the count, the worst pair's IoU and whether all boxes are equal are told.

`--points-per-side` shortens a run. It needs the peers extra (CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.automask import load_image
from benchmarks.family_peers import PEERS, Peer
from maskmill.pipeline.annotation import Annotation
from maskmill.pipeline.masks.automask import AutomaticMasks, warm_up
from maskmill.pipeline.rle import decode
from maskmill.pipeline.segmenters.families import FamilySegmenter


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparisons and prints a line of JSON for each family and size."""
    parser = argparse.ArgumentParser(prog="benchmarks.families")
    parser.add_argument("--family", default=",".join(PEERS), help="one or several by comma")
    parser.add_argument("--size", default="640x480", help="WIDTHxHEIGHT, one or several by comma")
    parser.add_argument("--image", type=Path, help="else scikit-image's coffee cup")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FutureWarning)  # the peers' own

    warm_up()
    for family in options.family.split(","):
        for size in options.size.split(","):
            width, height = map(int, size.split("x"))
            image = load_image(options.image, (width, height))
            result = compare(PEERS[family](image, options.points_per_side), image, options.runs)
            print(json.dumps({"family": family, "size": size, "points": options.points_per_side, **result}))
            sys.stdout.flush()


def compare(peer: Peer, image: Any, runs: int) -> dict[str, Any]:
    """Pairs of runs: seconds of each, the ratio, and how the masks agree."""
    stage = AutomaticMasks(FamilySegmenter(peer.model, device="cpu"), peer.settings)
    stage([image[:64, :64]])
    theirs_s, ours_s, steps = [], [], {}
    for _ in range(runs):
        theirs, seconds = _timed(partial(peer.generate, image))
        theirs_s.append(seconds)
        (ours,), seconds = _timed(partial(stage, [image]))
        ours_s.append(seconds)
        steps = {name: round(value, 3) for name, value in ours.seconds_by_step.items()}
    ratios = [slow / fast for slow, fast in zip(theirs_s, ours_s, strict=True)]
    return {
        "speedup": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "seconds_peer": round(statistics.median(theirs_s), 3),
        "seconds_ours": round(statistics.median(ours_s), 3),
        "seconds_by_step": steps,
        "threads": torch.get_num_threads(),
        **agreement(ours.annotations, theirs),
    }


def agreement(ours: Sequence[Annotation], theirs: Sequence[Any]) -> dict[str, Any]:
    """How many masks each side has, the worst pair's IoU, and how many boxes differ among the pairs."""
    others = [np.asarray(mask, bool) for mask in theirs]
    worst, moved = 1.0, 0
    for annotation in ours:
        mask = decode(annotation.segmentation).astype(bool)
        ious = [float((mask & other).sum() / max(1, (mask | other).sum())) for other in others] or [0.0]
        worst = min(worst, max(ious))
        rows, columns = np.nonzero(others[int(np.argmax(ious))]) if others else (np.zeros(1), np.zeros(1))
        x, y, width, height = annotation.bbox_xywh
        box = (columns.min(), rows.min(), columns.max(), rows.max())
        moved += (x, y, x + width, y + height) != box
    return {"masks": len(ours), "masks_peer": len(others), "worst_iou": worst, "boxes_moved": moved}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start_s = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start_s


if __name__ == "__main__":
    main()
