"""A small published dataset with the cases that readers of it stumble over."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.verify.verifier import PictureVerdicts, Verifier
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.masks.grid import GridMasks
from maskmill.workers.stages.verdicts.column import VerdictStage
from maskmill.workers.stages.verdicts.record import VERDICTS
from tests.fakes import FakeMasks, Pixels, jpeg_bytes

HOSTILE_NAME = "<script>alert(1)<!--&\"'.jpg"
NUM_ANNOTATED = 9
CAPTION = "a dog <b>& a cat"


@dataclass(frozen=True)
class Published:
    """The dataset, its one generation, and the folder its images came from."""

    store: ObjectStore
    generation: Generation
    inputs: Path
    spec: RunSpec


def shapes(seed: int, height: int = 48, width: int = 64) -> Pixels:
    """Grey blocks, each image another."""
    draw = np.random.default_rng(seed)
    small = draw.integers(10, 250, (height // 8, width // 8), np.uint8)
    return np.repeat(np.kron(small, np.ones((8, 8), np.uint8))[:, :, None], 3, axis=2)


def masks_or_none(images: Sequence[Pixels]) -> list[AnnotatedImage]:
    """`FakeMasks`, but a black image has no masks."""
    empty = [AnnotatedImage(image.shape[1], image.shape[0], ()) for image in images]
    return [empty[i] if image.max() < 5 else FakeMasks()([image])[0] for i, image in enumerate(images)]


def write_inputs(folder: Path) -> None:
    """Plain, turned, PNG, without masks, of hostile name and with a caption, inside a tar, and no image."""
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(jpeg_bytes(shapes(i)))
    (folder / "turned.jpg").write_bytes(turned_jpeg(shapes(10)))
    Image.fromarray(shapes(11, 40, 72)).save(folder / "picture.png")
    (folder / "black.jpg").write_bytes(jpeg_bytes(np.zeros((48, 64, 3), np.uint8)))
    (folder / HOSTILE_NAME).write_bytes(jpeg_bytes(shapes(12)))
    (folder / HOSTILE_NAME.replace(".jpg", ".txt")).write_text(CAPTION)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with tarfile.open(folder / "z.tar", "w") as tar:
        for name, data in (("a.jpg", jpeg_bytes(shapes(13))), ("b.jpg", turned_jpeg(shapes(14)))):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def turned_jpeg(pixels: Pixels) -> bytes:
    """A JPEG that lies on its side, with EXIF to say so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def make_spec(root: Path) -> RunSpec:
    """Made-up fingerprints, default settings."""
    return RunSpec(root=str(root), fingerprints={IMAGES: "0" * 16, MASKS: "1" * 16})


def build_stages(spec: RunSpec) -> Stages:
    """Stages with `masks_or_none` for a model."""
    store = open_store(spec.root)
    stage = GridMasks(masks_or_none, fingerprint=spec.fingerprints[MASKS], models={"segmenter": "fake"})
    return Stages(spec, store, load_plans(store), (stage,))


def publish_dataset(folder: Path, *, shard_size: int = 4) -> Published:
    """Plans, annotates and publishes `write_inputs`' images: `NUM_ANNOTATED` of ten."""
    inputs, spec = folder / "inputs", make_spec(folder / "dataset")
    write_inputs(inputs)
    store = open_store(spec.root)
    summary = make_plan(store, [str(inputs)], shard_size=shard_size)
    stages = build_stages(spec)
    for shard in range(summary.num_shards):
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))
    generation = publish(
        store,
        spec.fingerprints,
        settings={"masks": {"note": "</code><script>"}},
        models={"segmenter": "fake"},
        totals={},
        created_utc="2025-01-01T00:00:00+00:00",
    )
    return Published(store, generation, inputs, spec)


def with_verdicts(published: Published, say: Callable[[AnnotatedImage], PictureVerdicts]) -> Published:
    """The dataset with a second generation that has verdicts too, as `say` gives them."""

    def verifier(image: AnnotatedImage, **seen: object) -> PictureVerdicts:
        return say(image)

    fingerprints = {**published.spec.fingerprints, VERDICTS: "2" * 16}
    spec, store = RunSpec(root=published.spec.root, fingerprints=fingerprints), published.store
    judge = cast("Verifier", verifier)
    stage = VerdictStage(lambda: judge, None, fingerprint=fingerprints[VERDICTS], models={})
    masks = GridMasks(masks_or_none, fingerprint=fingerprints[MASKS], models={"segmenter": "fake"})
    stages = Stages(spec, store, load_plans(store), (masks, stage))
    for row in published.generation.rows():
        if row.column == MASKS:
            run_shard(stages, ShardTask(shard=row.shard, attempt=f"{row.shard + 100:016d}"))
    generation = publish(
        store, fingerprints, settings={}, models={}, totals={}, created_utc="2025-01-01T00:00:00+00:00"
    )
    return Published(store, generation, published.inputs, spec)
