"""Nothing in drawing and descending names no device: what a GPU would refuse fails here, on the CPU.

A tensor made without a device lands on the default one. With that set to "meta", where nothing can be
computed, it meets the CPU's tensors as it would meet a GPU's, and the operation is refused. (Scenes are
drawn on the CPU by intent, and moved.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.nano.dense import dense_heads
from maskmill.pipeline.train.nano.draw_prompts import PromptConfig, draw_prompts
from maskmill.pipeline.train.nano.pictures.feed import Feed, FeedConfig, Stream
from maskmill.pipeline.train.nano.pictures.photo_crops import LabelledPhoto, PhotoStore
from maskmill.pipeline.train.nano.step import StepConfig, training_step
from maskmill.pipeline.train.nano.train import TrainConfig, train

LITE = StudentConfig(image_size=64, embed_dim=32, decoder_heads=2, encoder="efficientnet_lite0", iou_knots=9)
CPU = torch.device("cpu")


def _store(maps: int) -> PhotoStore:
    rng = np.random.default_rng(maps)
    labels = np.zeros((maps, 90, 70), np.int32)
    labels[:, 5:40, 5:60], labels[:, 45:80, 10:50] = 1, 2
    photos = [LabelledPhoto(rng.integers(0, 256, (90, 70, 3), dtype=np.uint8), labels) for _ in range(3)]
    return PhotoStore(photos, CPU)


def test_a_step_names_the_device_of_every_tensor() -> None:
    torch.manual_seed(0)
    sam, regions, people = build_student(LITE).train(), _store(3), _store(1)
    heads, generator = dense_heads(sam), torch.Generator().manual_seed(0)
    config = FeedConfig(batch=8, region_share=0.4, people_share=0.6)
    feed = Feed(config, regions, people, Stream(), generator)
    feed.take(64)  # begins the scenes' loader, on the CPU

    with torch.device("meta"):
        for freeze_trunk in (True, False):
            pictures = feed.take(64)
            prompts = draw_prompts(pictures, PromptConfig(), generator)
            how = StepConfig(corrections=2, freeze_trunk=freeze_trunk)
            result = training_step(sam, pictures, prompts, generator, how, heads)
            result.loss.backward()

    assert result.loss.device == CPU
    assert torch.isfinite(result.loss)
    assert sam.image_encoder.trunk.stem[0].weight.grad is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this machine has 0 CUDA devices; use auto or cpu"):
        train(TrainConfig(minutes=1, device="cuda"), LITE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_processes_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="processes 2: this machine has 1 GPUs, one a process"):
        train(TrainConfig(minutes=1, processes=2), LITE, tmp_path / "run")
    assert not (tmp_path / "run").exists()
