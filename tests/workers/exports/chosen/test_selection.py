"""What is asked for is what every format writes; what is left out is counted."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pycocotools import mask as coco_mask

from maskmill.storage.query.query import QueryError
from maskmill.workers.exports.chosen.splits import parse, split_of
from maskmill.workers.exports.export import export
from maskmill.workers.exports.formats import format_names
from maskmill.workers.exports.report import ExportError
from maskmill.workers.reading.samples import read_annotated
from tests.workers.published import NUM_ANNOTATED, Published, publish_dataset

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning",
    "ignore:unclosed file:ResourceWarning",  # webdataset leaves tars to the collector
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

SPLIT = "40/30/30"
EDITORS = ("label_studio", "cvat", "fiftyone")
"""Formats of editors have no splits; tests/workers/tools/ reads them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


def records(data: Published) -> dict[str, Any]:
    return {sample.key: sample.record for sample in read_annotated(data.store, data.generation)}


def coco(folder: Path, name: str = "annotations.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def test_images_are_taken_by_sql_on_every_table(data: Published, tmp_path: Path) -> None:
    out = export(
        data.store, data.generation, str(tmp_path / "a"), format="coco", where="source like '%picture.png'"
    )
    assert out.num_images == 1
    deep = "key in (select key from masks group by key having count(*) >= 2)"
    export(data.store, data.generation, str(tmp_path / "b"), format="coco", where=deep)
    expected = {r["image"]["image_id"] for r in records(data).values() if len(r["annotations"]) >= 2}
    assert {image["id"] for image in coco(tmp_path / "b")["images"]} == expected


def test_masks_are_taken_by_sql_and_their_images_stay(data: Published, tmp_path: Path) -> None:
    areas = sorted(row["area"] for r in records(data).values() for row in r["annotations"])
    middle = areas[len(areas) // 2]
    report = export(
        data.store, data.generation, str(tmp_path / "a"), format="coco", masks_where=f"area_px > {middle}"
    )
    assert report.num_images == NUM_ANNOTATED
    assert report.num_masks == sum(area > middle for area in areas) > 0
    assert report.left_out == {"masks_where": len(areas) - report.num_masks}
    assert all(row["area"] > middle for row in coco(tmp_path / "a")["annotations"])


@pytest.mark.parametrize("format", [name for name in format_names() if name not in EDITORS])
def test_every_format_writes_the_same_images_masks_and_splits(
    format: str, data: Published, tmp_path: Path
) -> None:
    """Each as its readers open it: the split of an image, and its number of masks."""
    report = export(
        data.store, data.generation, str(tmp_path), format=format, split=SPLIT, limit=7, max_images=2
    )
    read = {
        "sa1b": _sa1b,
        "coco": _coco,
        "lvis": _coco,
        "yolo": _yolo,
        "hf": _hf,
        "panoptic": _panoptic,
        "semantic": _semantic,
    }[format]
    found = read(tmp_path)
    keys = sorted(records(data))[:7]
    shares = parse(SPLIT)
    assert len({split_of(key, shares) for key in keys}) > 1, "the test has more than one split"
    expected = {records(data)[key]["image"]["image_id"]: split_of(key, shares) for key in keys}
    assert {image: split for image, (split, _) in found.items()} == expected
    masks = {records(data)[key]["image"]["image_id"]: len(records(data)[key]["annotations"]) for key in keys}
    hidden = report.left_out.get("hidden", 0)
    if format != "semantic":
        assert sum(number for _, number in found.values()) == sum(masks.values()) - hidden == report.num_masks
    assert report.num_images == 7


def test_a_stopped_export_goes_on_with_the_same_selection_alone(data: Published, tmp_path: Path) -> None:
    choices = {"format": "sa1b", "split": SPLIT, "max_images": 2, "masks_where": "area_px > 300"}
    whole = export(data.store, data.generation, str(tmp_path / "whole"), **choices)
    cut = tmp_path / "cut"

    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        export(data.store, data.generation, str(cut), progress=stop, **choices)
    with pytest.raises(ExportError, match="holds another export: its options"):
        export(data.store, data.generation, str(cut), **{**choices, "masks_where": "area_px > 301"})
    again = export(data.store, data.generation, str(cut), **choices)
    assert [file.sha256 for file in again.files] == [file.sha256 for file in whole.files]
    assert again.left_out == whole.left_out


def test_classes_have_the_order_they_are_listed_in(data: Published, tmp_path: Path) -> None:
    export(
        data.store,
        data.generation,
        str(tmp_path),
        format="coco",
        classes=("cat", "dog"),
        class_map={"*": "dog"},
    )
    found = coco(tmp_path)
    assert [(one["id"], one["name"]) for one in found["categories"]] == [(1, "cat"), (2, "dog")]
    assert found["annotations"] == [], "masks without words are of no class"


@pytest.mark.parametrize(
    "choices",
    [
        {"where": "nonsense = 1"},
        {"masks_where": "nonsense = 1"},
        {"masks_where": "area_px > 1) or (1=1; drop table masks"},
        {"where": "source in (select content from read_text('/etc/passwd'))"},
    ],
)
def test_a_wrong_condition_is_told_before_anything_is_written(
    choices: dict[str, str], data: Published, tmp_path: Path
) -> None:
    with pytest.raises(QueryError):
        export(data.store, data.generation, str(tmp_path / "out"), **choices)
    assert not (tmp_path / "out").exists()


def _sa1b(folder: Path) -> dict[int, tuple[str, int]]:
    import webdataset

    found = {}
    for tar in folder.glob("*.tar"):
        assert tarfile.is_tarfile(tar)
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False).decode():
            record = sample["json"]
            split = tar.name.split("_")[1]
            found[record["image"]["image_id"]] = (split, len(record["annotations"]))
    return found


def _coco(folder: Path) -> dict[int, tuple[str, int]]:
    found = {}
    for split in ("train", "val", "test"):
        file = coco(folder, f"annotations_{split}.json")
        assert file["categories"] == coco(folder, "annotations_train.json")["categories"]
        for image in file["images"]:
            assert (folder / "images" / image["file_name"]).exists()
            masks = [row for row in file["annotations"] if row["image_id"] == image["id"]]
            assert all(coco_mask.area(row["segmentation"]) == row["area"] for row in masks)
            found[image["id"]] = (split, len(masks))
    return found


def _yolo(folder: Path) -> dict[int, tuple[str, int]]:
    settings = yaml.safe_load((folder / "data.yaml").read_text())
    found = {}
    for split in ("train", "val", "test"):
        for label in (folder / settings.get(split, "none").replace("images", "labels")).glob("*.txt"):
            if settings.get(split) == f"images/{split}":
                found[int(label.stem[3:])] = (split, len(label.read_text().splitlines()))
    return found


def _hf(folder: Path) -> dict[int, tuple[str, int]]:
    found = {}
    for path in (folder / "data").glob("*.parquet"):
        split = {"train": "train", "validation": "val", "test": "test"}[path.name.split("-")[0]]
        assert f"path: data/{path.name.split('-')[0]}-*.parquet" in (folder / "README.md").read_text()
        for row in pq.read_table(path).to_pylist():
            found[row["image_id"]] = (split, len(row["masks"]))
    return found


def _panoptic(folder: Path) -> dict[int, tuple[str, int]]:
    from tests.workers.exports.maps.test_panoptic import segments

    found = {}
    for split in ("train", "val", "test"):
        for entry, ids in segments(folder, f"panoptic_{split}"):
            found[entry["image_id"]] = (split, len(ids))
    return found


def _semantic(folder: Path) -> dict[int, tuple[str, int]]:
    from PIL import Image

    found = {}
    for split in ("train", "val", "test"):
        for path in (folder / f"masks_{split}").glob("*.png"):
            assert set(np.unique(np.asarray(Image.open(path)))) <= {0, 1}
            found[int(path.stem[3:])] = (split, 0)
    return found
