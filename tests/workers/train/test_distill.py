"""Distilling from kept embeddings: the teacher's encoder is never asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskmill.pipeline.settings import DistillSettings, EmbeddingSettings, MaskSettings, SegmenterSettings
from maskmill.pipeline.train.shapes import load_trainable
from maskmill.storage.dataset.generations import publish
from maskmill.storage.errors import InputError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import ShardTask, make_spec
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from maskmill.workers.train.distill import DistillJob, distill
from tests.fakes import write_pictures

TEACHER = SegmenterSettings(threads=1)


def annotated(folder: Path, embeddings: EmbeddingSettings) -> str:
    """A dataset of two pictures with nano's masks, and perhaps its embeddings."""
    root = str(folder / "data")
    write_pictures(folder / "inputs", 2)
    make_plan(open_store(root), [str(folder / "inputs")], shard_size=2)
    spec = make_spec(
        root,
        ingest=IngestSettings(),
        masks=MaskSettings(points_per_side=6, predicted_iou=0.3, stability=0.1),
        segmenter=TEACHER,
        embeddings=embeddings,
    )
    run_shard(build_stages(spec), ShardTask(shard=0, attempt="a" * 16))
    created = "2025-01-01T00:00:00+00:00"
    publish(open_store(root), spec.fingerprints, settings={}, models={}, totals={}, created_utc=created)
    return root


def job(root: str) -> DistillJob:
    settings = DistillSettings(encoder_steps=2, prompt_steps=0, batch=1, kept=True)
    return DistillJob(
        root=root, generation=1, teacher=TEACHER, student="tiny", settings=settings, run="0" * 16
    )


def test_the_teacher_s_encoder_is_not_asked_where_embeddings_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = annotated(tmp_path, EmbeddingSettings(keep="float16"))

    def blind(settings: SegmenterSettings) -> Any:
        sam = load_trainable(settings)

        def refuse(*_: object) -> None:
            raise AssertionError("the teacher encoded a picture")

        monkeypatch.setattr(sam.image_encoder, "forward", refuse)
        return sam

    monkeypatch.setattr("maskmill.workers.train.distill.load_trainable", blind)
    losses: list[float] = []
    card = distill(job(root), watch=lambda step, loss: losses.append(loss))
    assert card.number == 1 and all(loss > 0 for loss in losses)


def test_nothing_kept_is_said_before_any_step(tmp_path: Path) -> None:
    root = annotated(tmp_path, EmbeddingSettings())
    with pytest.raises(InputError, match=r"keeps no embeddings of the teacher nano; make them"):
        distill(job(root))
