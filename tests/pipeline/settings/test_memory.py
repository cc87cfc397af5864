"""What a worker's model needs of a machine, by its size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from maskmill.pipeline.settings import SEGMENTERS, SegmenterSettings
from maskmill.pipeline.settings.memory import GB, count_parameters, segmenter_bytes


@pytest.mark.parametrize(
    ("model", "gigabytes"),
    [
        ("nano", 1),
        ("vit_b", 3),
        ("vit_l", 6),
        ("vit_h", 10),
        ("student:repvit_m1", 2),
        ("student:tiny_vit_5m", 2),
    ],
)
def test_a_small_student_at_a_large_input_is_not_sized_like_vit_h(model: str, gigabytes: int) -> None:
    weights = None if model == "nano" else "nowhere.pth"
    assert segmenter_bytes(SegmenterSettings(model=model, weights=weights)) == gigabytes * GB


def test_the_weights_on_this_machine_count_and_not_the_family(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    save_file({"a": np.zeros((10, 10), np.float16)}, tmp_path / "model.safetensors")
    assert count_parameters(tmp_path) == count_parameters(tmp_path / "model.safetensors") == 100
    small = segmenter_bytes(SegmenterSettings(model="sam", weights=str(tmp_path)))
    assert small == 2 * GB < segmenter_bytes(SegmenterSettings(model="sam", weights="facebook/sam-vit-huge"))


def test_of_a_folder_one_form_of_weights_counts(tmp_path: Path) -> None:
    save_file({"a": np.zeros(60, np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.zeros(40, np.float32)}, tmp_path / "model-2.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(4000))
    assert count_parameters(tmp_path) == 100
    assert count_parameters(tmp_path / "pytorch_model.bin") == 1000


def test_a_damaged_header_is_judged_by_the_file(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x08" + bytes(7) + b"not json" + bytes(184))
    assert count_parameters(tmp_path / "cut.safetensors") == 100


@pytest.mark.parametrize("model", SEGMENTERS)
def test_every_segmenter_has_a_size(model: str) -> None:
    assert segmenter_bytes(SegmenterSettings(model=model, weights="nowhere")) >= GB
