"""The training loop: it ends in time, it resumes, two processes agree, its schedules are as described."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.scenes.photo_regions import photo_regions
from maskmill.pipeline.scenes.textures import photo
from maskmill.pipeline.segmenters.student import StudentConfig, load_student
from maskmill.pipeline.train.nano.draw_prompts import PromptConfig
from maskmill.pipeline.train.nano.pictures import photographs
from maskmill.pipeline.train.nano.pictures.feed import FeedConfig
from maskmill.pipeline.train.nano.train import (
    TrainConfig,
    learning_rate,
    picture_size,
    train,
    trunk_rate,
)

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)
QUICK = TrainConfig(
    minutes=0.02,
    processes=1,
    device="cpu",
    feed=FeedConfig(batch=1, region_share=0.5),
    prompts=PromptConfig(count=4),
    average_seconds=0.3,
    sizes=((0.0, 64),),
    eval_scenes=1,
)


@pytest.fixture(autouse=True)
def few_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One photograph of scikit-image's instead of twelve: partitioning takes a second each."""
    monkeypatch.setattr(photographs, "load_region_photos", lambda: [photo_regions(photo("coins.png", 96))])


def test_training_ends_in_time_logs_and_exports(tmp_path: Path) -> None:
    train(QUICK, TINY, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[-1]["pictures"] == 1
    assert 0 <= records[-1]["best_miou"] <= 1
    assert load_student(tmp_path / "student.safetensors").image_encoder.img_size == 64
    assert (tmp_path / "stable.pt").is_file()


def test_photographs_with_segments_join_but_those_held_apart(tmp_path: Path) -> None:
    masks = np.zeros((1, 40, 40), np.bool_)
    masks[0, 5:30, 5:30] = True
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    photos = [Truth("own.jpg", image, masks), Truth(photographs.HELD_APART[0], image, masks)]
    people = replace(QUICK, feed=FeedConfig(batch=2, region_share=0.0, people_share=1.0))
    train(people, TINY, tmp_path, photos=photos)
    regions, segmented = photographs.kept_photographs(tmp_path / "photographs.pt")
    assert len(regions) == 2
    assert len(segmented) == 1
    assert (segmented[0].image == image).all()


def test_a_resumed_run_goes_on_from_its_step_and_clock(tmp_path: Path) -> None:
    train(QUICK, TINY, tmp_path)
    before = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    train(replace(QUICK, minutes=0.04), TINY, tmp_path, resume=True)
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert after["step"] > before["step"] > 0
    assert after["seconds"] > 0.04 * 60 > before["seconds"]


def test_resuming_where_there_is_nothing_begins(tmp_path: Path) -> None:
    train(QUICK, TINY, tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").is_file()


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    train(replace(QUICK, processes=2), TINY, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] > 0


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    config = TrainConfig(minutes=1, lr=1.0, warmup_steps=10, decay_share=0.25)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 50, 0.3) == learning_rate(config, 50, 0.75) == 1.0
    falling = [learning_rate(config, 50, progress) for progress in (0.76, 0.85, 0.95, 1.0, 1.1)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-2:] == [0.0, 0.0]


def test_a_trunk_is_frozen_first_and_warmed_up_in_its_turn() -> None:
    config = TrainConfig(minutes=1, lr=1.0, warmup_steps=10, freeze_steps=50, trunk_lr=0.2)
    assert trunk_rate(config, 49, 0.1) == 0.0
    assert trunk_rate(config, 50, 0.1) == pytest.approx(0.02)
    assert trunk_rate(config, 90, 0.1) == pytest.approx(0.2)
    assert trunk_rate(config, 90, 1.0) == 0.0


def test_pictures_grow_with_the_time() -> None:
    config = TrainConfig(minutes=1, sizes=((0.0, 128), (0.4, 192), (0.7, 256)))
    assert [picture_size(config, progress) for progress in (0, 0.39, 0.4, 0.9)] == [128, 128, 192, 256]


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="minutes 0"):
        TrainConfig(minutes=0)
    with pytest.raises(ValueError, match=r"ema 1"):
        TrainConfig(minutes=1, ema=1.0)
