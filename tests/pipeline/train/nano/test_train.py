"""The training loop: it learns, it ends in time, it resumes, two processes agree, and its schedules are as
described."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student, load_student
from maskmill.pipeline.train.nano.samples import SampleConfig, sample
from maskmill.pipeline.train.nano.step import training_step
from maskmill.pipeline.train.nano.train import TrainConfig, learning_rate, picture_size, train

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)
QUICK = TrainConfig(
    minutes=0.02,
    processes=1,
    batch=1,
    average_seconds=0.3,
    sizes=((0.0, 64),),
    prompts=4,
    photo_share=0.0,
    eval_scenes=1,
    calibration_samples=5,
)


def test_a_few_steps_on_one_picture_lower_its_loss() -> None:
    torch.manual_seed(0)
    sam = build_student(TINY).train()
    optimiser = torch.optim.AdamW(sam.parameters(), lr=2e-3)
    samples = [sample(3, SampleConfig(size=64, prompts=6, photo_share=0.0))]
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(25):
        result = training_step(sam, samples, generator, second_round=False, bfloat16=False)
        optimiser.zero_grad()
        result.loss.backward()
        optimiser.step()
        losses.append(float(result.loss.detach()))
    assert np.mean(losses[-3:]) < 0.7 * losses[0], losses


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_second_round_trains_the_mask_prompt_and_everything_gets_a_gradient(bfloat16: bool) -> None:
    torch.manual_seed(0)
    sam = build_student(TINY).train()
    samples = [sample(number, SampleConfig(size=64, prompts=8, photo_share=0.0)) for number in (3, 8)]
    for seed in range(4):  # the mask prompt is used half the time
        generator = torch.Generator().manual_seed(seed)
        result = training_step(sam, samples, generator, second_round=True, bfloat16=bfloat16)
        result.loss.backward()
    assert 0 <= result.second_iou <= 1
    without = {name for name, p in sam.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without <= {"prompt_encoder.point_embeddings.0.weight"}, (
        without
    )  # no background point may have come


def test_training_ends_in_time_logs_and_exports(tmp_path: Path) -> None:
    train(QUICK, TINY, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[-1]["pictures"] == 1
    assert 0 <= records[-1]["best_miou"] <= 1
    assert load_student(tmp_path / "student.safetensors").image_encoder.img_size == 64
    assert (tmp_path / "stable.pt").is_file()


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


def test_pictures_grow_with_the_time() -> None:
    config = TrainConfig(minutes=1, sizes=((0.0, 128), (0.4, 192), (0.7, 256)))
    assert [picture_size(config, progress) for progress in (0, 0.39, 0.4, 0.9)] == [128, 128, 192, 256]


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="minutes 0"):
        TrainConfig(minutes=0)
    with pytest.raises(ValueError, match=r"ema 1"):
        TrainConfig(minutes=1, ema=1.0)
