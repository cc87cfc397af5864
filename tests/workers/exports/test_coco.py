"""The COCO export as pycocotools reads it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskmill.pipeline.annotation import from_sa1b
from maskmill.pipeline.rle import decode
from maskmill.workers.exports.export import export
from maskmill.workers.exports.report import ExportError, ExportReport
from maskmill.workers.reading.samples import read_annotated
from tests.workers.published import CAPTION, NUM_ANNOTATED, Published, publish_dataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def exported(data: Published, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    folder = tmp_path_factory.mktemp("coco") / "out"
    return folder, export(data.store, data.generation, str(folder), format="coco")


def load(folder: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "annotations.json"))


def test_pycocotools_gives_back_every_mask(data: Published, exported: tuple[Path, ExportReport]) -> None:
    folder, report = exported
    coco = load(folder)
    assert len(coco.imgs) == report.num_images == NUM_ANNOTATED
    assert len(coco.anns) == report.num_masks
    for sample in read_annotated(data.store, data.generation):
        stored = from_sa1b(sample.record)
        found = coco.loadAnns(coco.getAnnIds(imgIds=[sample.record["image"]["image_id"]]))
        assert len(found) == len(stored.annotations)
        for theirs, ours in zip(found, stored.annotations, strict=True):
            assert (coco.annToMask(theirs).astype(bool) == decode(ours.segmentation)).all()
            assert theirs["area"] == ours.area_px == coco_mask.area(coco.annToRLE(theirs))
            assert theirs["bbox"] == coco_mask.toBbox(coco.annToRLE(theirs)).tolist()
            x, y, width, height = ours.bbox_xywh
            assert theirs["bbox"] == [x, y, width + 1, height + 1]
            assert (theirs["category_id"], theirs["iscrowd"]) == (1, 0)
            assert theirs["predicted_iou"] == ours.predicted_iou


def test_ids_are_unique_and_never_zero(exported: tuple[Path, ExportReport]) -> None:
    annotations = json.loads((exported[0] / "annotations.json").read_bytes())["annotations"]
    ids = [annotation["id"] for annotation in annotations]
    assert len(set(ids)) == len(ids) and 0 not in ids


def test_images_are_there_and_of_the_size_named(data: Published, exported: tuple[Path, ExportReport]) -> None:
    folder, report = exported
    coco = load(folder)
    for entry in coco.imgs.values():
        with Image.open(folder / "images" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])
    assert report.num_loose_images == len(list((folder / "images").iterdir())) == NUM_ANNOTATED
    assert CAPTION in {entry.get("caption") for entry in coco.imgs.values()}


def test_the_dataset_is_its_own_perfect_result(exported: tuple[Path, ExportReport]) -> None:
    coco = load(exported[0])
    results = [{**annotation, "score": 0.9} for annotation in coco.dataset["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_sizes_and_sums_are_those_of_the_files(exported: tuple[Path, ExportReport]) -> None:
    folder, report = exported
    content = (folder / "annotations.json").read_bytes()
    assert report.files[0].sha256 == hashlib.sha256(content).hexdigest()
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "export.json"]
    assert report.size_bytes == sum(path.stat().st_size for path in files)
    assert report.rejects == {"not_an_image": 1}
    assert np.all([path.suffix in (".jpg", ".json") for path in files])


def test_without_images_the_json_is_alone(data: Published, tmp_path: Path) -> None:
    report = export(data.store, data.generation, str(tmp_path / "out"), format="coco", images=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"annotations.json", "export.json"}
    assert len(load(tmp_path / "out").anns) == report.num_masks
    assert report.num_loose_images == 0


def test_done_again_it_only_says_so(data: Published, exported: tuple[Path, ExportReport]) -> None:
    folder, first = exported
    second = export(data.store, data.generation, str(folder), format="coco")
    assert second.already_complete and second.num_loose_images == first.num_loose_images
    with pytest.raises(ExportError, match="options"):
        export(data.store, data.generation, str(folder), format="coco", images=False)
