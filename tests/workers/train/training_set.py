"""A small published dataset of blocks with their true masks, and a student small enough to train in a test.

Run as a program it trains: the drill kills it and starts it again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import area_px, box_xyxy, encode_mask
from maskmill.pipeline.segmenters.student import StudentConfig, build_student, save_student
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.verify.head import Verdicts
from maskmill.pipeline.verify.verifier import PictureVerdicts
from maskmill.storage.dataset.generations import Generation, latest, publish
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.truth import TruthSet
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.base import Picture, Stage
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.masks.grid import GridMasks
from maskmill.workers.stages.verdicts.column import VerdictStage
from maskmill.workers.stages.verdicts.record import VERDICTS
from maskmill.workers.train.loop import TrainJob
from tests.fakes import jpeg_bytes

SIZE = 64
STUDENT = StudentConfig(
    image_size=SIZE,
    widths=(8, 8, 16, 16),
    depths=(0, 1, 1, 1),
    embed_dim=32,
    decoder_heads=2,
    decoder_mlp_dim=32,
)
SETTINGS = TrainSettings(
    steps=8, batch=2, masks=4, points=1, bare_rounds=1, min_area_px=4, lr=1e-3, warmup=2, checkpoint_every=2,
    shuffle_shards=2,
)  # fmt: skip


def annotation(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], quality: float = 0.9) -> Annotation:
    rle = encode_mask(mask)
    left, top, right, bottom = box_xyxy(rle)
    box = (float(left), float(top), float(right - left), float(bottom - top))
    return Annotation(rle, box, area_px(rle), quality, 1.0, (0.0, 0.0, 64.0, 64.0), ((0.0, 0.0),), 0)


class TrueMasks:
    """Stands in for the mask stage: the seed in a picture's name says which scene it is."""

    def __init__(self, *, empty: bool = False) -> None:
        self._empty = empty
        self.pictures: list[Picture] = []

    def __call__(self, images: object) -> list[AnnotatedImage]:
        return [
            AnnotatedImage(
                SIZE,
                SIZE,
                () if self._empty else tuple(annotation(m) for m in scene_of(picture.source).masks_NHW),
            )
            for picture in self.pictures
        ]


class TrueMaskStage(GridMasks):
    def run(self, pictures):  # type: ignore[no-untyped-def]
        self._annotate.pictures = list(pictures)  # type: ignore[attr-defined]
        return super().run(pictures)


def scene_of(source: str) -> Truth:
    """Three bright blocks on a dark, noisy ground; the name's number seeds it."""
    draw = np.random.default_rng(int(Path(source).stem))
    image = draw.integers(0, 60, (SIZE, SIZE, 3)).astype(np.uint8)
    masks = np.zeros((3, SIZE, SIZE), np.bool_)
    for i, mask in enumerate(masks):
        top, left = draw.integers(2, 26, 2) + np.array([0, 20 * (i % 2)])
        height, width = draw.integers(8, 18, 2)
        mask[top : top + height, left : left + width] = True
        image[mask] = draw.integers(90, 255, 3).astype(np.uint8)
    return Truth(source, image, masks)


def now(store: ObjectStore) -> Generation:
    """The newest generation, which there is."""
    found = latest(store)
    assert found is not None
    return found


def verdict_of(area_px: int) -> tuple[float, float]:
    """Expected IoU and chance to be right that the verifier of these datasets gives a mask."""
    return round(0.5 + area_px / 2000, 4), round(area_px / 1000, 4)


class Judge:
    """Stands in for a verifier: the larger, the better."""

    def __call__(self, image: AnnotatedImage, **given: object) -> PictureVerdicts:
        said = np.array([verdict_of(one.area_px) for one in image.annotations], np.float32).reshape(-1, 2)
        return PictureVerdicts(Verdicts(right_N=said[:, 1], expected_iou_N=said[:, 0]), 0.5, None, True)


def publish_scenes(
    folder: Path, *, count: int = 6, first: int = 0, empty: bool = False, judged: bool = False
) -> Generation:
    inputs = folder / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        (inputs / f"{seed}.jpg").write_bytes(jpeg_bytes(scene_of(str(seed)).image))
    root = folder / "dataset"
    prints = {IMAGES: "0" * 16, MASKS: "1" * 16, **({VERDICTS: "2" * 16} if judged else {})}
    spec = RunSpec(root=str(root), fingerprints=prints)
    store = open_store(str(root))
    summary = make_plan(store, [str(inputs)], shard_size=2)
    stage = TrueMaskStage(TrueMasks(empty=empty), fingerprint="1" * 16, models={"segmenter": "truth"})
    stages: tuple[Stage, ...] = (stage,)
    if judged:
        stages += (VerdictStage(cast(Any, Judge), None, fingerprint="2" * 16, models={"verifier": "judge"}),)
    for shard in range(summary.num_shards):
        run_shard(
            Stages(spec, store, load_plans(store), stages), ShardTask(shard=shard, attempt=f"{shard:016d}")
        )
    return publish(
        store, spec.fingerprints, settings={}, models={"segmenter": "truth"}, totals={},
        created_utc="2025-01-01T00:00:00+00:00",
    )  # fmt: skip


def write_coco(folder: Path, *, first: int, count: int) -> TruthSet:
    """Pictures and COCO annotations of blocks that `publish_scenes` would make of these seeds."""
    (folder / "images").mkdir(parents=True)
    images, rows = [], []
    for seed in range(first, first + count):
        truth = scene_of(str(seed))
        (folder / "images" / f"{seed}.jpg").write_bytes(jpeg_bytes(truth.image))
        images.append({"id": seed + 1, "file_name": f"{seed}.jpg", "height": SIZE, "width": SIZE})
        for mask in truth.masks_NHW:
            left, top, right, bottom = box_xyxy(encode_mask(mask))
            box = [left, top, right - left + 1, bottom - top + 1]
            shape = {"segmentation": encode_mask(mask).to_coco(), "area": int(mask.sum()), "bbox": box}
            rows.append({"id": len(rows) + 1, "image_id": seed + 1, "category_id": 1, "iscrowd": 0, **shape})
    coco = folder / "blocks.json"
    coco.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1}]}))
    return TruthSet("blocks", coco, folder / "images")


def write_student(path: Path) -> Path:
    torch.manual_seed(0)
    save_student(build_student(STUDENT), STUDENT, path)
    return path


def job_of(folder: Path, run: str, settings: TrainSettings = SETTINGS) -> TrainJob:
    weights = folder / "start.safetensors"
    if not weights.exists():
        write_student(weights)
    return TrainJob(
        root=str(folder / "dataset"),
        generation=1,
        segmenter=SegmenterSettings(weights=str(weights), device="cpu", threads=1),
        settings=settings,
        run=run,
    )


if __name__ == "__main__":
    from maskmill.workers.train.loop import train

    torch.set_num_threads(1)
    train(job_of(Path(sys.argv[1]), sys.argv[2]))
