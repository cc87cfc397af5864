"""Imports: COCO and SA-1B as a column, fitted to the images, and out again as they came in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from maskmill.pipeline.rle import Rle, decode
from maskmill.storage.dataset.generations import latest
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.base import ObjectStore, open_store
from maskmill.workers.exports import export
from maskmill.workers.jobs.import_column import import_annotations
from maskmill.workers.measure.compare import compare
from maskmill.workers.reading.samples import read_annotated
from tests.fakes import jpeg_bytes, write_pictures
from tests.workers.published import Published, publish_dataset

NOW = "2025-01-01T00:00:00+00:00"
POLYGON = [[5.0, 5.0, 30.0, 5.0, 30.0, 20.0, 5.0, 20.0]]


def rle(top: int, left: int, size: int, height: int = 48, width: int = 64) -> dict[str, Any]:
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + size, left : left + size] = 1
    found = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [height, width], "counts": found["counts"].decode()}


def coco() -> dict[str, Any]:
    """Two annotated images, one known to have none, one that the dataset lacks; all kinds of masks."""
    images = [
        {"id": 70 + i, "file_name": f"{i:05d}.jpg", "width": 64, "height": 48, "license": 3} for i in range(3)
    ]
    images.append({"id": 99, "file_name": "elsewhere.jpg", "width": 10, "height": 10})
    common = {"iscrowd": 0, "bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.5}
    annotations: list[dict[str, Any]] = [
        {"id": 1, "image_id": 70, "category_id": 18, "segmentation": POLYGON, **common},
        {"id": 2, "image_id": 70, "category_id": 1, "segmentation": rle(3, 4, 9), **common, "score": 0.5},
        {"id": 3, "image_id": 71, "category_id": 1, "segmentation": {"size": [48, 64], "counts": [10, 3062]}},
    ]
    annotations[2] |= {**common, "iscrowd": 1, "attributes": {"occluded": True}}
    categories = [{"id": 18, "name": "dog", "supercategory": "animal"}, {"id": 1, "name": "person"}]
    info = {"year": 2025, "note": "naïve"}
    head = {"info": info, "licenses": [{"id": 3, "name": "CC"}], "categories": categories}
    return {**head, "images": images, "annotations": annotations}


@pytest.fixture
def planned(tmp_path: Path) -> ObjectStore:
    write_pictures(tmp_path / "photos", 5)
    store = open_store(tmp_path / "data")
    make_plan(store, [str(tmp_path / "photos")], shard_size=2)
    return store


def by_id(entries: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {entry["id"]: entry for entry in entries}


def test_coco_comes_out_as_it_went_in(planned: ObjectStore, tmp_path: Path) -> None:
    ours = coco()
    (tmp_path / "in.json").write_text(json.dumps(ours))
    report = import_annotations(planned, [tmp_path / "in.json"], format="coco", created_utc=NOW)
    assert (report.num_images, report.num_masks, report.unmatched) == (3, 3, 1)
    assert report.rejects == {"not_annotated": 2}
    generation = latest(planned)
    assert generation is not None and generation.made_by == "import"

    export(planned, generation, str(tmp_path / "out"), format="coco", column="given")
    theirs = json.loads((tmp_path / "out" / "annotations.json").read_text())
    for name in ("info", "licenses", "categories"):
        assert theirs[name] == ours[name]
    assert by_id(theirs["annotations"]) == by_id(ours["annotations"])
    known = {key: entry for key, entry in by_id(ours["images"]).items() if key != 99}
    assert by_id(theirs["images"]) == known
    assert (tmp_path / "out" / "images" / "00001.jpg").exists()

    again = import_annotations(planned, [tmp_path / "in.json"], format="coco", created_utc=NOW)
    assert (again.published, again.generation) == (False, report.generation)
    back = [tmp_path / "out" / "annotations.json"]
    twice = import_annotations(planned, back, format="coco", column="twice", created_utc=NOW)
    assert (twice.num_images, twice.num_masks) == (3, 3)


def test_records_are_masks_for_every_reader(planned: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps(coco()))
    import_annotations(planned, [tmp_path / "in.json"], format="coco", created_utc=NOW)
    generation = latest(planned)
    assert generation is not None
    records = {s.key: s.record for s in read_annotated(planned, generation, column="given")}
    polygon, square = records["000000001"]["annotations"]
    theirs = coco_mask.merge(coco_mask.frPyObjects(POLYGON, 48, 64))
    assert polygon["segmentation"]["counts"] == theirs["counts"].decode()
    assert polygon["area"] == decode(Rle.from_coco(polygon["segmentation"])).sum()
    assert (square["bbox"], square["area"], square["predicted_iou"]) == ([4.0, 3.0, 8.0, 8.0], 81, 0.5)
    assert square["id"] == 100001
    assert records["000000003"]["annotations"] == []


def test_images_that_were_scaled_get_scaled_masks_and_others_are_told(tmp_path: Path) -> None:
    store, photos = open_store(tmp_path / "data"), tmp_path / "photos"
    photos.mkdir()
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[50:150, 100:200] = 200
    for name in ("a.jpg", "b.jpg"):
        pixels[0, 0] += 9
        (photos / name).write_bytes(jpeg_bytes(pixels))
    make_plan(store, [str(photos)], shard_size=8)
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 300, "height": 200},
        {"id": 2, "file_name": "b.jpg", "width": 200, "height": 300},
    ]
    mask = rle(50, 100, 100, 200, 300)
    annotations = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": mask}]
    (tmp_path / "in.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    from maskmill.workers.run.ingest_settings import IngestSettings

    small = IngestSettings(max_shorter_side_px=100)
    report = import_annotations(store, [tmp_path / "in.json"], format="coco", ingest=small, created_utc=NOW)
    assert report.rejects == {"size_differs": 1}
    generation = latest(store)
    assert generation is not None
    (sample,) = read_annotated(store, generation, column="given")
    assert sample.record["image"]["width"] == 150
    assert sample.record["annotations"][0]["area"] == 2500


def test_our_own_sa1b_export_is_taken_in_beside_the_masks(tmp_path: Path) -> None:
    data: Published = publish_dataset(tmp_path)
    export(data.store, data.generation, str(tmp_path / "tars"))
    report = import_annotations(data.store, [tmp_path / "tars"], format="sa1b", created_utc=NOW)
    assert (report.num_images, report.unmatched) == (9, 0)
    generation = latest(data.store)
    assert generation is not None
    assert {row.column for row in generation.rows()} == {"images", "masks", "given"}
    ours = [sample.record for sample in read_annotated(data.store, generation)]
    theirs = [sample.record for sample in read_annotated(data.store, generation, column="given")]
    for mine, other in zip(ours, theirs, strict=True):
        masks = [annotation["segmentation"] for annotation in mine["annotations"]]
        assert masks == [annotation["segmentation"] for annotation in other["annotations"]]
    assert compare(data.store, data.generation, generation).columns[0].added == 9
    with Image.open(tmp_path / "inputs" / "0.jpg") as image:
        assert image.size == (64, 48)


@pytest.mark.parametrize(
    ("text", "format", "message"),
    [
        ("{}", "coco", "not a COCO annotations file"),
        ("[]", "sa1b", "not an SA-1B record"),
        ("{}", "voc", "use one of coco, sa1b"),
        ("no json", "coco", "not a COCO annotations file"),
    ],
)
def test_other_files_are_refused(
    planned: ObjectStore, tmp_path: Path, text: str, format: str, message: str
) -> None:
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(InputError, match=message):
        import_annotations(planned, [tmp_path / "in.json"], format=format, created_utc=NOW)
    assert latest(planned) is None


def test_names_of_our_columns_and_empty_datasets_are_refused(planned: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps(coco()))
    paths = [tmp_path / "in.json"]
    with pytest.raises(InputError, match="column 'masks' cannot be imported"):
        import_annotations(planned, paths, format="coco", column="masks", created_utc=NOW)
    with pytest.raises(DatasetError, match="no images are planned"):
        import_annotations(open_store(tmp_path / "new"), paths, format="coco", created_utc=NOW)
