"""Every SAM's grid masks beside its peer's: equal masks, and how many times sooner.

    python -m benchmarks.families --family sam2_tiny,sam2_base_plus,sam_hq_b,edgetam,sam3 \
        --size 640x480,1500x2250 --runs 3 --limit 3600

Peers: for SAM 2 the sam2 package's `SAM2AutomaticMaskGenerator`, for SAM-HQ segment-anything-hq's
`SamAutomaticMaskGenerator`, for EdgeTAM and SAM 3's tracker transformers' `mask-generation` pipeline, each
with its own rules and the same thresholds. Weights are random, heads adjusted until masks pass
(`adjust_family`); the peer shares them. Runs are paired, the peer first; `speedup` is the median of the
pairs' ratios of wall time, `speedup_cpu` that of CPU time. Masks are paired by IoU: the count, the worst
pair's IoU and how many boxes differ are told.

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
from typing import Any, NamedTuple

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
    parser.add_argument(
        "--limit", type=float, default=float("inf"), help="seconds; no pair begins after them"
    )
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FutureWarning)  # the peers' own

    warm_up()
    began_s = time.monotonic()
    for family in options.family.split(","):
        for size in options.size.split(","):
            width, height = map(int, size.split("x"))
            image = load_image(options.image, (width, height))
            result = compare(
                PEERS[family](image, options.points_per_side), image, options.runs, began_s + options.limit
            )
            print(json.dumps({"family": family, "size": size, "points": options.points_per_side, **result}))
            sys.stdout.flush()


def compare(peer: Peer, image: Any, runs: int, until_s: float) -> dict[str, Any]:
    """Pairs of runs: wall and CPU seconds of each, the ratios, and how the masks agree.

    Args:
        peer: both sides.
        image: for all runs.
        runs: pairs; the first is run whatever the time.
        until_s: on the monotonic clock; no later pair begins after it.
    """
    stage = AutomaticMasks(FamilySegmenter(peer.model, device="cpu"), peer.settings)
    stage([image[:64, :64]])
    spent: list[tuple[Spent, Spent]] = []
    for run in range(runs):
        if run and time.monotonic() > until_s:
            break
        theirs, peer_spent = _timed(partial(peer.generate, image))
        (ours,), our_spent = _timed(partial(stage, [image]))
        spent.append((peer_spent, our_spent))
        steps = {name: round(value, 3) for name, value in ours.seconds_by_step.items()}
    ratios = [slow.wall_s / fast.wall_s for slow, fast in spent]
    return {
        "speedup": round(statistics.median(ratios), 2),
        "speedup_cpu": round(statistics.median(slow.cpu_s / fast.cpu_s for slow, fast in spent), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "seconds_peer": round(statistics.median(slow.wall_s for slow, _ in spent), 3),
        "seconds_ours": round(statistics.median(fast.wall_s for _, fast in spent), 3),
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


class Spent(NamedTuple):
    """Of one run; CPU seconds are all threads' together."""

    wall_s: float
    cpu_s: float


def _timed(work: Callable[[], Any]) -> tuple[Any, Spent]:
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    result = work()
    return result, Spent(time.perf_counter() - start_s, time.process_time() - start_cpu_s)


if __name__ == "__main__":
    main()
