"""What can be trained, and the file it ends in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.train.shapes import load_trainable, save_trained


def test_a_trained_nano_is_a_student_again(tmp_path: Path) -> None:
    sam = load_trainable(SegmenterSettings())
    state = sam.state_dict()
    name = next(name for name in state if name.startswith("image_encoder."))
    changed = {**state, name: state[name] + 1}
    path = save_trained(changed, SegmenterSettings(), tmp_path)
    again = load_trainable(SegmenterSettings(weights=str(path))).state_dict()
    assert path.name == "student.safetensors"
    assert torch.equal(again[name], changed[name]) and again.keys() == state.keys()


def test_a_vit_ends_in_a_plain_checkpoint(tmp_path: Path) -> None:
    state = {"a": torch.ones(2, 3).T}
    path = save_trained(state, SegmenterSettings(model="vit_b", weights="x.pth"), tmp_path)
    read = torch.load(path, weights_only=True)
    assert path.name == "sam.pth" and torch.equal(read["a"], state["a"]) and read["a"].is_contiguous()


def test_what_is_not_trained_here_is_named() -> None:
    with pytest.raises(ValueError, match=r"model='sam2' can't be trained here: use nano or one of vit_b"):
        load_trainable(SegmenterSettings(model="sam2", weights="x"))
