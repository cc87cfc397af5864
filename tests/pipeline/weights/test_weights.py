from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from maskmill.pipeline.segmenters import load_segmenter, weights_identity
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.weights import weights
from maskmill.pipeline.weights.errors import DamagedWeights, MissingWeights, UnsafeWeights, WrongWeights


class _RunsCode:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def test_torch_and_safetensors_files_give_the_same(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, tmp_path / "w.pth")
    torch.save({"model": tensors}, tmp_path / "wrapped.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "w.safetensors")
    for name in ("w.pth", "wrapped.pth", "old.pth", "w.safetensors"):
        read = weights.read_tensors(tmp_path / name)
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": _RunsCode()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeWeights, match=r"refused: loading it would call \w+\.system"):
        weights.read_tensors(path)


def test_a_bare_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(_RunsCode(), protocol=2))
    with pytest.raises(UnsafeWeights, match=r"call \w+\.system"):
        weights.read_tensors(path)


@pytest.mark.parametrize("kept", [0, 5, 100, -10])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_cut_file_is_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], suffix: str, kept: int
) -> None:
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(tensors, whole)
    else:
        save_file(tensors, whole)
    path.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(DamagedWeights, match=r"cut.*again"):
        weights.read_tensors(path)


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_text("<html>404</html>")
    with pytest.raises(DamagedWeights, match=r"page\.pth"):
        weights.read_tensors(path)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(UnsafeWeights, match=r"call torch\.nn\.modules\.linear\.Linear"):
        weights.read_tensors(tmp_path / "module.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(WrongWeights, match="no tensors by name"):
        weights.read_tensors(tmp_path / "list.pth")


def test_missing_files_say_the_cure(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="vit_b ships no weights: use `maskmill fetch vit_b`"):
        weights_identity(SegmenterSettings(model="vit_b"))
    with pytest.raises(MissingWeights, match="does not exist: check the path"):
        load_segmenter(SegmenterSettings(model="vit_b", weights=str(tmp_path / "no.pth")))
    with pytest.raises(MissingWeights, match="is a folder"):
        weights.resolve(SegmenterSettings(model="nano", weights=str(tmp_path)))


def test_identity_follows_the_bytes_not_the_path(tmp_path: Path) -> None:
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    identity = weights_identity(SegmenterSettings(model="vit_b", weights=str(first)))
    assert identity == weights_identity(SegmenterSettings(model="vit_b", weights=str(second)))
    first.write_bytes(b"else!")
    assert identity != weights_identity(SegmenterSettings(model="vit_b", weights=str(first)))
    assert len(identity) == 64


def test_identity_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"once")
    misses = weights._sha256.cache_info().misses
    assert weights.sha256_of(path) == weights.sha256_of(path)
    assert weights._sha256.cache_info().misses == misses + 1


def test_another_models_weights_are_recognised() -> None:
    expected = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768), "other": torch.zeros(1)}
    given = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1280), "extra": torch.zeros(1)}
    with pytest.raises(WrongWeights) as caught:
        weights.check_fit(given, expected, model="vit_b", path=Path("x.pth"))
    message = str(caught.value)
    for part in ("1 missing (other)", "1 unexpected (extra)", "1280) for (1, 64, 64, 768)", "vit_h"):
        assert part in message
    weights.check_fit(expected, expected, model="vit_b", path=Path("x.pth"))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("image_encoder.stem.0.weight", "student"),
        ("image_encoder.trunk.stem.0.weight", "student"),
        ("image_encoder.trunk.x", "SAM 2"),
        ("vision_encoder.x", "transformers"),
        ("image_encoder.patch_embed.seq.0.c.weight", "MobileSAM"),
        ("backbone.x", "no segmenter"),
    ],
)
def test_whose_weights(key: str, name: str) -> None:
    assert name in weights.looks_like({key: torch.zeros(1)})


def test_vit_weights_for_nano_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam_vit_b.pth"
    buffer = io.BytesIO()
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 768)}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(WrongWeights, match="does not fit nano: it looks like segment_anything's vit_b"):
        load_segmenter(SegmenterSettings(model="nano", weights=str(path)))
