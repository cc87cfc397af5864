"""Memory follows a model's size and kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.words.settings import CaptionSettings
from maskmill.workers.run.columns import Sections
from maskmill.workers.run.memory import GB, worker_bytes


def weights(folder: Path, size_bytes: int) -> str:
    path = folder / f"{size_bytes}.pth"
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return str(path)


@pytest.mark.parametrize(
    "model, size_bytes, low, high",
    [
        ("vit_b", 375_000_000, 2.5, 3.5),
        ("vit_l", 1_250_000_000, 5.0, 6.5),
        ("vit_h", 2_560_000_000, 9.0, 11.0),
        ("student:repvit_m1", 39_000_000, 1.0, 1.3),  # EdgeSAM: was given ViT-H's 10 GB
    ],
)
def test_a_segmenter_is_sized_by_its_weights(
    tmp_path: Path, model: str, size_bytes: int, low: float, high: float
) -> None:
    settings = SegmenterSettings(model=model, weights=weights(tmp_path, size_bytes))
    assert low * GB <= worker_bytes(Sections({"segmenter": settings})) <= high * GB


def test_nano_needs_a_gigabyte() -> None:
    assert 0.95 * GB < worker_bytes(Sections()) <= GB


def test_weights_that_are_elsewhere_count_as_the_largest(tmp_path: Path) -> None:
    settings = SegmenterSettings(model="vit_b", weights=str(tmp_path / "none.pth"))
    assert worker_bytes(Sections({"segmenter": settings})) > 9 * GB


def test_models_of_words_come_on_top(tmp_path: Path) -> None:
    captions = CaptionSettings(model=str(tmp_path / "no"), filter=str(tmp_path / "neither"))
    assert worker_bytes(Sections({"captions": captions})) - worker_bytes(Sections()) == 2 * 3_700_000_000
    off = CaptionSettings(filter=str(tmp_path / "neither"))
    assert worker_bytes(Sections({"captions": off})) == worker_bytes(Sections())
