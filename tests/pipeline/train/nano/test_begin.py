"""What a training begins from: an older student, one of its kind, or nothing; photographs once a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.scenes.photo_regions import photo_regions
from maskmill.pipeline.scenes.textures import photo
from maskmill.pipeline.segmenters.student import StudentConfig, build_student, save_student
from maskmill.pipeline.train.nano.begin import begun_student, check_the_same
from maskmill.pipeline.train.nano.pictures import photographs
from maskmill.pipeline.train.nano.pictures.photographs import with_regions

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)


@pytest.fixture(autouse=True)
def few_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One photograph of scikit-image's instead of twelve: partitioning takes a second each."""
    monkeypatch.setattr(photographs, "load_region_photos", lambda: [photo_regions(photo("coins.png", 96))])


def test_photographs_that_come_too_late_are_refused(tmp_path: Path) -> None:
    photographs.keep_photographs(tmp_path / "photographs.pt", [], [])
    late = [Truth("own.jpg", np.zeros((40, 40, 3), np.uint8), np.ones((1, 40, 40), np.bool_))]
    with pytest.raises(ValueError, match="was begun with 0 photographs with segments, now 1 are given"):
        check_the_same(tmp_path / "photographs.pt", late)
    check_the_same(tmp_path / "photographs.pt", [replace(late[0], name=photographs.HELD_APART[0])])


def test_a_student_goes_on_from_an_older_one(tmp_path: Path) -> None:
    torch.manual_seed(1)
    older = build_student(TINY)
    save_student(older, TINY, tmp_path / "older.safetensors")
    lite = replace(TINY, encoder="efficientnet_lite0", iou_knots=9)
    regions = with_regions([])
    sam = begun_student(lite, tmp_path / "older.safetensors", regions)
    assert torch.equal(sam.mask_decoder.iou_token.weight, older.mask_decoder.iou_token.weight)
    assert sam.mask_decoder.iou_prediction_head.said_K.shape == (9,)
    same = begun_student(TINY, tmp_path / "older.safetensors", regions)
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), older.parameters(), strict=True))
    fresh = begun_student(lite, None, regions)
    assert torch.equal(fresh.image_encoder.trunk.stem[0].weight, sam.image_encoder.trunk.stem[0].weight)
