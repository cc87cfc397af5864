"""The YOLO export as Ultralytics documents its readers: labels beside images, rows checked, polygons filled.

The rules restated here are those of https://docs.ultralytics.com/datasets/segment/ and of its loader:
`labels` in place of `images` in the path, `.txt` in place of the ending, class and at least three points,
shares of 0 to 1, classes below the number of names; polygons are scaled, cut to whole numbers and filled
by OpenCV.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from maskmill.pipeline.rle import Rle, decode
from maskmill.workers.exports.chosen.splits import split_of
from maskmill.workers.exports.export import export
from maskmill.workers.exports.report import ExportReport
from maskmill.workers.exports.yolo import SPLIT, label_line
from maskmill.workers.reading.samples import read_annotated
from tests.workers.published import NUM_ANNOTATED, Published, publish_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def exported(data: Published, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    folder = tmp_path_factory.mktemp("yolo") / "out"
    return folder, export(data.store, data.generation, str(folder), format="yolo")


def read_yolo(folder: Path) -> dict[str, tuple[tuple[int, int], list[tuple[int, Any]]]]:
    """Image name -> (height, width), [(class, polygon in shares)]; asserts the loader's rules."""
    settings = yaml.safe_load((folder / "data.yaml").read_text())
    assert "path" not in settings, "a loader then looks beside the file, and no folder of the maker's is told"
    names = settings["names"]
    assert sorted(names) == list(range(len(names)))
    found = {}
    for split in {settings["train"], settings["val"]}:
        for picture in sorted(Path(folder, split).iterdir()):
            label = Path(str(picture.parent).replace("/images/", "/labels/"), f"{picture.stem}.txt")
            with Image.open(picture) as image:
                width, height = image.size
            rows = [line.split() for line in label.read_text().splitlines()]
            assert all(len(row) >= 7 and len(row) % 2 == 1 for row in rows)
            polygons = [(int(row[0]), np.array(row[1:], float).reshape(-1, 2)) for row in rows]
            assert all(polygon.min() >= 0 and polygon.max() <= 1 for _, polygon in polygons)
            assert all(number in names for number, _ in polygons)
            found[picture.name] = ((height, width), polygons)
    return found


def test_a_reader_of_the_documented_rules_gets_the_masks_back(
    data: Published, exported: tuple[Path, ExportReport]
) -> None:
    folder, report = exported
    read = read_yolo(folder)
    assert len(read) == report.num_images == NUM_ANNOTATED
    assert sum(len(polygons) for _, polygons in read.values()) == report.num_masks
    for sample in read_annotated(data.store, data.generation):
        info = sample.record["image"]
        size, polygons = read[f"sa_{info['image_id']}.jpg"]
        assert size == (info["height"], info["width"])
        for (_, polygon), annotation in zip(polygons, sample.record["annotations"], strict=True):
            ours = decode(Rle.from_coco(annotation["segmentation"]))
            canvas = np.zeros(size, np.uint8)
            cv2.fillPoly(canvas, [(polygon * (size[1], size[0])).astype(np.int32)], 1)
            assert (canvas.astype(bool) & ours).sum() / ours.sum() > 0.99
            assert ours.sum() / (canvas.astype(bool) | ours).sum() > 0.85  # thin bridges between islands


def test_a_line_is_class_and_shares() -> None:
    assert (
        label_line(3, {"size": [2, 4], "counts": [0, 8]}) == "3 0.125 0.25 0.875 0.25 0.875 0.75 0.125 0.75"
    )
    assert label_line(3, {"size": [2, 4], "counts": [8]}) == ""


def test_an_image_keeps_its_split_and_about_one_in_twenty_is_val() -> None:
    splits = [split_of(f"{number:09d}", SPLIT) for number in range(4000)]
    assert 120 < splits.count("val") < 280
    assert splits[:100] == [split_of(f"{number:09d}", SPLIT) for number in range(100)]


def test_done_again_it_only_says_so(data: Published, exported: tuple[Path, ExportReport]) -> None:
    folder, report = exported
    again = export(data.store, data.generation, str(folder), format="yolo")
    assert again.already_complete and again.files == report.files
