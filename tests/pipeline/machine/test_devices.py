"""The device that a setting names."""

from __future__ import annotations

import pytest
import torch

from maskmill.pipeline.machine.devices import choose_device


def test_devices_that_lack_are_named() -> None:
    assert choose_device("auto").type in {"cpu", "cuda"}
    with pytest.raises(ValueError, match="CUDA devices; use auto or cpu"):
        choose_device("cuda:99")


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


def test_a_gpu_is_counted_from_nought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device='cuda:2': this machine has 2 CUDA devices; use auto or cpu"):
        choose_device("cuda:2")
