"""A click of the page by its steps, on the server alone: decoder, mask head, run lengths, JSON.

    python -m benchmarks.browse_click                   nano's decoder, 1500x2250
    python -m benchmarks.browse_click --model vit_b     ViT-B's, with random weights

The encoder is not in the path: the embedding is random numbers, as if it were kept. Milliseconds are CPU's of
all threads, so that a shared machine gives figures too, with the wall's beside them. `before` are the steps
as they were: logits at the picture's size, and torch's own number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from segment_anything.build_sam import sam_model_registry

from maskmill.pipeline.evaluate.truth import full_size
from maskmill.pipeline.machine.torch_threads import one_thread
from maskmill.pipeline.masks.upsample import runs
from maskmill.pipeline.rle import Rle, encode_mask
from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.segmenters.base import ImageEmbedding, PromptableImage, Prompts, Segmenter
from maskmill.pipeline.segmenters.interactive import Clicks, answer_clicks
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings import SegmenterSettings

WARM = 3


def main() -> None:
    """Measures, prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--model", default="nano", choices=("nano", "vit_b"))
    parser.add_argument("--size", default="1500x2250", metavar="WIDTHxHEIGHT")
    parser.add_argument("--clicks", type=int, default=30)
    asked = parser.parse_args()
    width, height = (int(side) for side in asked.size.split("x"))
    segmenter = _segmenter(asked.model)
    held = segmenter.prompt(_embedding(segmenter, asked.model, width, height))
    rng = np.random.default_rng(0)
    clicks = [
        Clicks((tuple(point),), (1,)) for point in rng.uniform((0, 0), (width, height), (asked.clicks, 2))
    ]

    with one_thread():
        now = _measured(
            clicks, lambda one: answer_clicks(held, one, None, threshold=segmenter.mask_threshold)
        )
        steps = _steps(held, clicks, segmenter.mask_threshold)
    print(json.dumps({"now": now, "steps_cpu_ms": steps}), file=sys.stderr, flush=True)
    before = _measured(clicks, lambda one: _as_before(held, one, segmenter.mask_threshold))
    facts = {"model": asked.model, "size": asked.size, "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps({**facts, "now": now, "steps_cpu_ms": steps, "before": before}, indent=1))


def _segmenter(model: str) -> Segmenter:
    if model == "nano":
        return load_segmenter(SegmenterSettings(model="nano", device="cpu"))
    torch.manual_seed(0)
    return SamSegmenter(sam_model_registry[model](), device="cpu")


def _embedding(segmenter: Segmenter, model: str, width: int, height: int) -> ImageEmbedding:
    """Random features where the encoder's would be; nano's own, of noise: its encoder costs little."""
    scale = segmenter.image_size / max(width, height)
    if model == "nano":
        noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        return segmenter.embed([noise])[0]
    features = torch.randn(256, 64, 64, generator=torch.Generator().manual_seed(0))
    return ImageEmbedding(features, height, width, round(height * scale), round(width * scale))


def _measured(clicks: list[Clicks], ask: Callable[[Clicks], Any]) -> dict[str, float]:
    cpu, wall = [], []
    for one in clicks:
        began, began_s = time.process_time(), time.perf_counter()
        ask(one)
        cpu.append(1e3 * (time.process_time() - began))
        wall.append(1e3 * (time.perf_counter() - began_s))
    ordered = sorted(wall[WARM:])
    return {
        "cpu_ms_p50": round(statistics.median(cpu[WARM:]), 1),
        "wall_ms_best": round(ordered[0], 1),
        "wall_ms_p50": round(statistics.median(ordered), 1),
        "wall_ms_p95": round(ordered[int(0.95 * len(ordered))], 1),
    }


@torch.inference_mode()
def _steps(held: PromptableImage, clicks: list[Clicks], threshold: float) -> dict[str, float]:
    """CPU milliseconds of each step, at the median."""
    spent: defaultdict[str, list[float]] = defaultdict(list)
    frame = held.embedding.frame

    def timed(name: str, step: Callable[..., Any], *values: Any, **named: Any) -> Any:
        began = time.process_time()
        made = step(*values, **named)
        spent[name].append(1e3 * (time.process_time() - began))
        return made

    def as_json(mask: Rle) -> str:
        return json.dumps(mask.to_coco())

    for one in clicks:
        prediction = timed("decoder", held.predict, _prompts(one), multimask=True)
        keep_PM = torch.zeros_like(prediction.predicted_iou_PM, dtype=torch.bool)
        keep_PM[0, int(prediction.predicted_iou_PM[0].argmax())] = True
        logits_1hw = timed("mask head", prediction.masks, keep_PM).float()
        mask = timed("run lengths", runs, logits_1hw[0].numpy(), frame, threshold=threshold)
        timed("JSON", as_json, mask)
    return {name: round(statistics.median(values[WARM:]), 2) for name, values in spent.items()}


@torch.inference_mode()
def _as_before(held: PromptableImage, clicks: Clicks, threshold: float) -> Any:
    prediction = held.predict(_prompts(clicks), multimask=True)
    keep_PM = torch.zeros_like(prediction.predicted_iou_PM, dtype=torch.bool)
    keep_PM[0, int(prediction.predicted_iou_PM[0].argmax())] = True
    logits_1hw = prediction.masks(keep_PM).float()
    return encode_mask((full_size(logits_1hw, held.embedding)[0] > threshold).numpy())


def _prompts(clicks: Clicks) -> Prompts:
    return Prompts(np.array([clicks.points]), np.array([clicks.labels], np.int64))


if __name__ == "__main__":
    main()
