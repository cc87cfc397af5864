"""Checkpoints as trainers write them are loaded whole, or refused with what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from maskmill.pipeline.weights.errors import WrongWeights
from maskmill.pipeline.weights.unwrapped import without_prefix
from maskmill.pipeline.weights.weights import check_fit, read_model, read_tensors

State = Mapping[str, torch.Tensor]
STATE: State = {
    "image_encoder.pos_embed": torch.arange(4.0),
    "prompt_encoder.no_mask_embed.weight": torch.ones(2),
    "mask_decoder.iou_token.weight": torch.zeros(3),
}
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
STATISTICS = {"pixel_mean": MEAN.view(-1, 1, 1), "pixel_std": STD.view(-1, 1, 1)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in STATE.items()}


WRITTEN: dict[str, Callable[[], Any]] = {
    "plain": lambda: dict(STATE),
    "DDP": lambda: prefixed("module."),
    "Lightning": lambda: {"state_dict": prefixed("model."), "epoch": 3, "hyper_parameters": {"lr": 1e-4}},
    "Lightning of DDP": lambda: {"state_dict": prefixed("model.module.sam.")},
    "micro_sam": lambda: {"model_state": prefixed("sam."), "epoch": 3, "optimizer_state": {"step": 3}},
    "micro_sam, exported": lambda: {"model_state": dict(STATE), "decoder_state": {}},
    "MedSAM": lambda: {"model": dict(STATE), "optimizer": {"state": {}}, "epoch": 3},
    "a tutorial": lambda: {"model_state_dict": dict(STATE), "loss": 0.25},
    "net": lambda: {"net": prefixed("module."), "acc": 0.5},
    "compiled": lambda: prefixed("_orig_mod."),
    "twice wrapped": lambda: {"state_dict": {"model": dict(STATE)}},
    "statistics beside": lambda: {
        **STATE,
        "pixel_mean": MEAN.view(-1, 1, 1),
        "pixel_std": STD.view(-1, 1, 1),
    },
    "statistics in a prefix": lambda: {
        **prefixed("module."),
        "module.pixel_mean": MEAN,
        "module.pixel_std": STD,
    },
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_whole_state_is_found(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(WRITTEN[name](), path)
    found = read_model(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in STATE.items())
    check_fit(found, STATE, model="vit_b", path=path)


def test_what_not_all_names_share_stays(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({**prefixed("model."), "criterion.weight": torch.ones(1)}, path)
    with pytest.raises(WrongWeights, match=r"criterion\.weight.*save that model's own state_dict") as raised:
        check_fit(read_model(path), STATE, model="vit_b", path=path)
    assert "3 missing" in str(raised.value)


def test_a_part_of_a_model_keeps_its_names(tmp_path: Path) -> None:
    path = tmp_path / "part.pth"
    torch.save({"vision_encoder.a": torch.ones(1), "vision_encoder.b": torch.ones(1)}, path)
    assert read_tensors(path).keys() == {"vision_encoder.a", "vision_encoder.b"}


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ({}, "it is empty"),
        ([torch.ones(1)], "a list"),
        ({"epoch": 3, "weights": dict(STATE)}, "it has epoch, weights"),
        ({"state_dict": {"lr": 0.1}}, "it has state_dict"),
    ],
)
def test_what_holds_no_state_says_what_it_has_and_the_cure(held: Any, told: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(held, path)
    with pytest.raises(WrongWeights, match=r"torch\.save\(model\.state_dict\(\)") as raised:
        read_model(path)
    assert told in str(raised.value)


@pytest.mark.parametrize("values", [[0.485, 0.456, 0.406], [127.5], [0.0, 0.0, 0.0]])
def test_other_pixel_statistics_are_refused(values: list[float]) -> None:
    with pytest.raises(WrongWeights, match="prepared in another way"):
        without_prefix({**STATE, "pixel_mean": torch.tensor(values)}, Path("w.pth"))
