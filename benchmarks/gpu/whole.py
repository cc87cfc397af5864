"""The engine's parts one by one, and the whole: from JPEG bytes to SA-1B JSON bytes.

Shares of passing masks are set by the threshold of predicted IoU, at that quantile of the model's own; the
stability threshold is low enough that masks of random weights survive.
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.clock import milliseconds, peak_gib, wait
from benchmarks.gpu.models import Pixels
from maskmill.pipeline.annotation import AnnotatedImage, to_sa1b
from maskmill.pipeline.gpu.axis_tables import tables_of
from maskmill.pipeline.gpu.choose import choose_ops
from maskmill.pipeline.gpu.grid_decoder import GridDecoder
from maskmill.pipeline.gpu.ops import Levels, Slots
from maskmill.pipeline.gpu.region import Region
from maskmill.pipeline.gpu.survivors import passing, survivors
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.masks.geometry import Crop, point_grid
from maskmill.pipeline.segmenters.base import Segmenter, grid_parts_of
from maskmill.pipeline.settings import MaskSettings


def photographs(count: int, width: int, height: int) -> list[bytes]:
    """JPEGs of a size: soft shapes and grain, each another."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grained = (pixels + rng.integers(-9, 10, pixels.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grained).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def drawing(seed: int, side: int) -> Pixels:
    """Discs and rectangles of one colour each, which a trained model finds: uint8[side, side, 3]."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8)
    y_SS, x_SS = np.mgrid[:side, :side]
    for number in range(10):
        y, x = rng.integers(0, side, 2)
        height, width = rng.integers(side // 10, side // 4, 2)
        inside_SS = (abs(y_SS - y) < height) & (abs(x_SS - x) < width)
        if number % 2:
            inside_SS = ((y_SS - y) / height) ** 2 + ((x_SS - x) / width) ** 2 < 1
        image[inside_SS] = rng.integers(0, 256, 3)
    return image


def decoded(data: bytes) -> Pixels:
    """uint8[H, W, 3]."""
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def threshold_for(segmenter: Segmenter, image: Pixels, share: float, points: int) -> float:
    """The predicted IoU that this share of outputs exceeds."""
    parts = grid_parts_of(segmenter)
    assert parts is not None
    grid = GridDecoder(parts.weights, choose_ops(parts.device), predicted_iou=0.0)
    (embedding,) = segmenter.embed([image])
    scale = np.array([embedding.input_width, embedding.input_height])
    points_xy = torch.from_numpy(point_grid(points) * scale).to(parts.device)
    found = grid(embedding.features_CHW, embedding.maps, points_xy)
    return min(max(float(found.iou_PM.float().quantile(1 - share)), 0.0), 1.0)


def parts_one_by_one(segmenter: Any, images: Sequence[Pixels], settings: MaskSettings) -> dict[str, Any]:
    """Milliseconds an image of the encoder, the grid (decoder and mask head), and what follows."""
    parts = grid_parts_of(segmenter)
    assert parts is not None
    device, ops = parts.device, choose_ops(parts.device)
    batch = list(images[: segmenter.images_per_batch])
    encoder_ms = milliseconds(lambda: segmenter.embed(batch), device, runs=3, warm_ups=2) / len(batch)
    embedding = segmenter.embed(batch)[0]
    decoder = GridDecoder(parts.weights, ops, predicted_iou=settings.predicted_iou)
    region: Any = Region("grid", lambda features, points, *maps: decoder(features, maps, points))
    scale = np.array([embedding.input_width, embedding.input_height])
    points = torch.from_numpy(point_grid(settings.points_per_side) * scale).to(device)
    grid_ms = milliseconds(lambda: region(embedding.features_CHW, points, *embedding.maps), device)

    # After the grid, each on what the one before gave
    found = region(embedding.features_CHW, points, *embedding.maps)
    iou_N, keep_N = found.iou_PM.flatten(), found.keep_PM.flatten()
    logits, tables = found.logits_PMhw.flatten(0, 1), tables_of(embedding.frame, decoder.low_hw, device)
    levels, flags = Levels(-settings.stability_offset, 0.0, settings.stability_offset), keep_N.to(torch.uint8)
    measures = ops.measure(logits, flags, tables, levels)
    height, width = embedding.height, embedding.width
    crop = Crop((0, 0, width, height), 0)
    passes = passing(measures, keep_N, settings, crop, height=height, width=width)
    slots = min(1024, len(iou_N))
    kept = survivors(measures, iou_N, passes, ops, max_iou=settings.box_nms, slots=slots)
    wanted = Slots(kept.mask_V, kept.num_1, 0, height, 2**19)
    return {
        "images_a_batch": len(batch),
        "encoder_ms": {"ms": round(encoder_ms, 3), "predicted_ms": 11.0},
        "decoder_and_head_ms": {"ms": grid_ms, "predicted_ms": 8.0},
        "measure_ms": {
            "ms": milliseconds(lambda: ops.measure(logits, flags, tables, levels), device),
            "predicted_ms": 1.5,
        },
        "suppress_ms": {
            "ms": milliseconds(
                lambda: survivors(measures, iou_N, passes, ops, max_iou=settings.box_nms, slots=slots), device
            ),
            "predicted_ms": 0.3,
        },
        "runs_ms": {
            "ms": milliseconds(lambda: ops.runs(logits, wanted, tables, 0.0), device),
            "predicted_ms": 0.5,
        },
        "share_passing_iou": round(float(keep_N.float().mean()), 3),
        "masks_passing": int(passes.sum()),
        "masks_surviving": int(kept.num_1),
        "cancellation": float(found.cancellation),
    }


def whole(
    segmenter: Segmenter,
    settings: MaskSettings,
    photos: Sequence[bytes],
    *,
    threads: int,
    baseline: bool = False,
) -> dict[str, Any]:
    """Images a second from JPEG bytes to JSON bytes; decoding and JSON on threads beside the model's.

    Args:
        segmenter: on its device.
        settings: of the stage.
        photos: JPEGs.
        threads: that decode ahead and write behind.
        baseline: by the way without a device engine.
    """
    stage = AutomaticMasks(segmenter, settings)
    annotate = stage._by_crop if baseline else stage
    device = getattr(segmenter, "device", torch.device("cpu"))
    together = 1 if baseline else 4 * segmenter.images_per_batch
    annotate([decoded(photo) for photo in photos[: segmenter.images_per_batch]])  # kernels, graphs, caches
    wait(device)
    peak_gib(device)

    start_s = time.perf_counter()
    with ThreadPoolExecutor(threads) as beside:
        ahead = [beside.submit(decoded, photo) for photo in photos]
        written = []
        for first in range(0, len(ahead), together):
            found = annotate([one.result() for one in ahead[first : first + together]])
            written += [beside.submit(_json, number, one) for number, one in enumerate(found, first)]
        sizes = [one.result() for one in written]
    seconds = time.perf_counter() - start_s
    masks = [num_masks for num_masks, _ in sizes]
    return {
        "images": len(photos),
        "images_a_second": round(len(photos) / seconds, 2),
        "ms_an_image": round(1e3 * seconds / len(photos), 2),
        "masks_an_image": round(float(np.mean(masks)), 1),
        "peak_gib": peak_gib(device),
    }


def _json(number: int, found: AnnotatedImage) -> tuple[int, int]:
    """How many masks and bytes an image's record has."""
    text = json.dumps(to_sa1b(found, image_id=number, file_name=f"{number}.jpg"))
    return len(found.annotations), len(text)


def agreement(ours: Sequence[AnnotatedImage], theirs: Sequence[AnnotatedImage]) -> dict[str, Any]:
    """Of masks by another engine: how many there are, how many ours has equal, and with equal points."""
    equal, near, number = 0, 0, 0
    for one, other in zip(ours, theirs, strict=True):
        rles = {mask.segmentation for mask in one.annotations}
        origins = {(mask.point_xy, mask.output_token) for mask in one.annotations}
        number += len(other.annotations)
        equal += sum(mask.segmentation in rles for mask in other.annotations)
        near += sum((mask.point_xy, mask.output_token) in origins for mask in other.annotations)
    counts = [sum(len(one.annotations) for one in some) for some in (ours, theirs)]
    return {"masks": counts[0], "masks_other": counts[1], "same_origin": near, "equal_to_the_pixel": equal}


def profiled(
    stage: AutomaticMasks, image: Pixels, device: torch.device, rows: int = 25
) -> list[dict[str, Any]]:
    """The dearest operations of one image."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=kinds) as seen:
        stage([image])
        wait(device)
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda one: -getattr(one, name))[:rows]
    return [
        {"name": one.key[:90], "calls": one.count, "ms": round(getattr(one, name) / 1e3, 3)} for one in events
    ]


def with_threshold(settings: MaskSettings, predicted_iou: float) -> MaskSettings:
    """The same with another predicted IoU, and a stability that random masks reach."""
    return dataclasses.replace(settings, predicted_iou=predicted_iou, stability=0.5)
