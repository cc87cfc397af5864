from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from maskmill.pipeline.weights import pretrained, weights
from maskmill.pipeline.weights.errors import DamagedWeights, MissingWeights, UnsafeWeights, WrongWeights
from tests.pipeline.words import tiny_clip


class _RunsCode:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.save(tiny_clip.build_clip(), tmp_path_factory.mktemp("clip"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "clip"))


def find(folder: Path) -> pretrained.Pretrained:
    return pretrained.find(str(folder), role="namer", model_types=("clip",))


def load(folder: Path) -> Any:
    return pretrained.load_model(transformers.CLIPModel, find(folder), dtype=torch.float32)


def test_a_saved_model_comes_back_whole(saved: Path) -> None:
    wanted, got = tiny_clip.build_clip().state_dict(), load(saved)
    assert not got.training and not any(p.requires_grad for p in got.parameters())
    for name, tensor in got.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_a_torch_file_does_too_and_safetensors_win(folder: Path) -> None:
    torch.save(tiny_clip.build_clip(seed=5).state_dict(), folder / "pytorch_model.bin")
    assert "pytorch_model.bin" not in {path.name for path in weights.model_files(folder)}
    (folder / "model.safetensors").unlink()
    wanted = tiny_clip.build_clip(seed=5).state_dict()
    assert torch.equal(load(folder).visual_projection.weight, wanted["visual_projection.weight"])


def test_tensors_that_lack_or_differ_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_projection.weight"]
    tensors["visual_projection.weight"] = torch.ones(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongWeights) as caught:
        load(folder)
    for part in (
        "CLIPModel",
        "1 missing (text_projection.weight)",
        "1 of another shape (visual_projection.weight)",
    ):
        assert part in str(caught.value)


def test_a_checkpoint_of_another_class_is_named(folder: Path) -> None:
    """Grounding DINO's detector asked for where a CLIP is, and a captioner where a matcher is, and so on."""
    with pytest.raises(WrongWeights, match="of type 'clip', but this role needs blip: see"):
        pretrained.find(str(folder), role="captioner", model_types=("blip",))


@pytest.mark.parametrize("kept", [0, 100, -50])
def test_a_cut_file_is_named(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedWeights, match="cannot be read whole"):
        load(folder)


def test_a_torch_file_that_runs_code_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": _RunsCode()}, folder / "pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match=r"refused: loading it would call \w+\.system"):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DamagedWeights, match="cannot be read whole"):
        load(folder)


def test_folders_that_lack_parts_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingWeights, match=r"has no config\.json: name a folder"):
        find(tmp_path / "empty")
    for path in folder.glob("*processor*"):
        path.unlink()
    with pytest.raises(MissingWeights, match="not what prepares its inputs"):
        pretrained.load_processor(transformers.CLIPImageProcessor, find(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingWeights, match=r"holds no model\.safetensors"):
        find(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(DamagedWeights, match=r"config\.json cannot be read"):
        find(folder)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("visual_encoder.cls_token", "text_decoder.bert.x"), "BLIP's own captioning.*Salesforce/blip-image"),
        (("visual_encoder.cls_token", "itm_head.weight"), "matching.*Salesforce/blip-itm"),
        (
            ("module.transformer.enc_out_bbox_embed.x", "module.bert.y"),
            "Grounding DINO's own.*IDEA-Research/",
        ),
        (("image_encoder.pos_embed",), "a segmenter's checkpoint"),
        (("whatever",), "is a single file: name a folder"),
    ],
)
def test_official_checkpoints_are_refused_with_the_cure(
    tmp_path: Path, names: tuple[str, ...], says: str
) -> None:
    torch.save({"model": {name: torch.zeros(1) for name in names}}, tmp_path / "official.pth")
    with pytest.raises(WrongWeights, match=says):
        pretrained.find(str(tmp_path / "official.pth"), role="captioner", model_types=("blip",))
