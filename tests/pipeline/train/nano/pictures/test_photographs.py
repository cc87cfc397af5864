"""Photographs to train on: read from COCO, those held apart left out, segments as label maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.train.nano.pictures.photographs import (
    HELD_APART,
    held_apart,
    read_photographs,
    to_train,
    with_segments,
)


def _written(folder: Path, names: list[str]) -> Path:
    mask = np.zeros((20, 30), np.bool_)
    mask[5:15, 5:20] = True
    for name in names:
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder / name)
    images = [
        {"id": i, "file_name": name, "width": 30, "height": 20} for i, name in enumerate(names, start=1)
    ]
    annotation = {
        "category_id": 1, "area": 150, "bbox": [5, 5, 15, 10], "segmentation": encode_mask(mask).to_coco()
    }  # fmt: skip
    annotations = [
        {**annotation, "id": 2 * i + crowd, "image_id": i, "iscrowd": crowd}
        for i in range(1, len(names) + 1)
        for crowd in (0, 1)
    ]
    path = folder / "segments.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]})
    )
    return path


def test_photographs_are_read_without_crowds_and_parted_by_name(tmp_path: Path) -> None:
    names = ["a.png", HELD_APART[0].replace(".jpg", ".png"), "b.png"]
    (tmp_path / "x").mkdir()
    photographs = read_photographs(_written(tmp_path, names), tmp_path)
    assert [len(one.masks_NHW) for one in photographs] == [1, 1, 1]
    assert photographs[0].masks_NHW.sum() == 150
    renamed = [Truth(HELD_APART[i], one.image, one.masks_NHW) for i, one in enumerate(photographs[:2])]
    assert held_apart([*renamed, photographs[2]]) == renamed
    assert [one.name for one in to_train([*renamed, photographs[2]])] == ["b.png"]


def test_the_list_held_apart_is_fixed() -> None:
    assert len(HELD_APART) == len(set(HELD_APART)) == 10


def test_of_overlapping_segments_the_smaller_is_on_top() -> None:
    masks = np.zeros((2, 10, 10), np.bool_)
    masks[0, 2:4, 2:4], masks[1, 1:9, 1:9] = True, True
    (photo,) = with_segments([Truth("one", np.zeros((10, 10, 3), np.uint8), masks)])
    assert photo.labels_LHW.shape == (1, 10, 10)
    assert photo.labels_LHW[0, 3, 3] == 1
    assert photo.labels_LHW[0, 6, 6] == 2
    assert photo.labels_LHW[0, 0, 0] == 0


def test_a_missing_photograph_is_named(tmp_path: Path) -> None:
    path = _written(tmp_path, ["a.png"])
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"names a\.png, which is not in"):
        read_photographs(path, tmp_path)
