"""Imports: COCO and SA-1B as a column, fitted to the images, and out again as they came in."""

from __future__ import annotations

import dataclasses
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
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.export import export
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
    assert (report.matched, report.ambiguous, report.num_annotations, report.left_out) == (3, 0, 3, {})
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
        ('{"images": [], "annotations": []}', "coco", "has no images"),
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
    with pytest.raises(InputError, match=r"column 'review' .* put into it by `maskmill review`"):
        import_annotations(planned, paths, format="coco", column="review", created_utc=NOW)
    for name in ("nan", "true", "Given", "a-b", ""):
        with pytest.raises(InputError, match="cannot be imported"):
            import_annotations(planned, paths, format="coco", column=name, created_utc=NOW)
    assert latest(planned) is None


def stored(store: ObjectStore, column: str = "given") -> dict[str, dict[str, Any]]:
    """The last generation's records of a column by the picture that each is of."""
    generation = latest(store)
    assert generation is not None
    named = dict(load_plans(store).iter_sources())
    return {
        Path(named[sample.key]).as_posix(): sample.record
        for sample in read_annotated(store, generation, column=column)
    }


def write(path: Path, images: list[Any], annotations: list[Any], **more: Any) -> list[Path]:
    path.write_text(json.dumps({"images": images, "annotations": annotations, **more}))
    return [path]


def entry(id_: object, name: str, width: int = 64, height: int = 48) -> dict[str, Any]:
    return {"id": id_, "file_name": name, "width": width, "height": height}


def test_masks_go_to_the_picture_of_their_whole_folder_or_to_none(tmp_path: Path) -> None:
    store = open_store(tmp_path / "data")
    for place, folder in enumerate(["north", "south"]):
        write_pictures(tmp_path / "photos" / folder, 2, first=2 * place)
        for number, path in enumerate(sorted((tmp_path / "photos" / folder).iterdir())):
            path.rename(path.with_name(f"{number}.jpg"))
    write_pictures(tmp_path / "photos", 1, first=9)
    make_plan(store, [str(tmp_path / "photos")], shard_size=2)
    images = [
        entry("n0", "north/0.jpg"),
        entry("s0", "..\\photos\\south\\0.jpg"),
        entry("bare", "1.jpg"),
        entry("far", "east/0.jpg"),
        entry("top", "00009.jpg"),
    ]
    rows = [{"id": n, "image_id": one["id"], "segmentation": POLYGON} for n, one in enumerate(images)]
    rows.append({"id": 77, "image_id": "unlisted", "segmentation": POLYGON})
    report = import_annotations(
        store, write(tmp_path / "in.json", images, rows), format="coco", created_utc=NOW
    )

    assert {Path(name).parts[-2:] for name in stored(store)} == {
        ("north", "0.jpg"),
        ("south", "0.jpg"),
        ("photos", "00009.jpg"),
    }
    assert (report.matched, report.ambiguous, report.unmatched) == (3, 1, 1)
    assert report.rejects == {"ambiguous": 2}
    assert report.left_out == {"ambiguous": 1, "image_not_in_dataset": 1, "unknown_image": 1}
    assert report.first_left_out["unknown_image"] == ("annotation 77",)
    assert report.num_annotations == 6 == report.num_masks + sum(report.left_out.values())


def test_the_unit_of_rejection_is_the_annotation_and_the_account_adds_up(
    planned: ObjectStore, tmp_path: Path
) -> None:
    common = {"image_id": 1, "segmentation": POLYGON}
    rows: list[Any] = [
        {"id": 1, **common, "score": None},
        {"id": 2, **common, "score": float("nan")},
        {"id": 3, "image_id": 1, "segmentation": [[1, 2]]},
        {"id": 4, "image_id": 1, "segmentation": [[1, 2], *POLYGON]},
        {"id": 5, "image_id": 1, "segmentation": [], "bbox": [10, 10, 30, 20]},
        {"id": 6, "image_id": 1},
        {"id": 7, **common, "attributes": {"mean": float("inf"), "by": "\udc80"}},
        {"id": 8, "image_id": 2, "segmentation": POLYGON},
        "nine",
    ]
    images = [entry(1, "00000.jpg"), entry(2, "00001.jpg", 48, 64)]
    report = import_annotations(
        planned, write(tmp_path / "in.json", images, rows), format="coco", created_utc=NOW
    )
    assert report.left_out == {
        "bad_polygon": 1, "bad_score": 1, "no_shape": 1, "not_an_object": 1, "size_differs": 1,
    }  # fmt: skip
    assert report.first_left_out["bad_score"] == ("annotation 2",)
    assert (report.num_masks, report.num_annotations, report.bad_rings) == (4, 9, 1)
    (record,) = stored(planned).values()
    assert record["dropped"] == {"bad_polygon": 1, "bad_score": 1, "no_shape": 1}
    assert [row["original"]["id"] for row in record["annotations"]] == [1, 4, 5, 7]
    assert [row["area"] for row in record["annotations"]][2] == 600
    assert record["annotations"][3]["original"]["attributes"] == {"mean": None, "by": "\ufffd"}

    again = import_annotations(planned, [tmp_path / "in.json"], format="coco", created_utc=NOW)
    assert dataclasses.replace(again, published=True) == report


def test_a_picture_that_was_rejected_is_in_the_account(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 1)
    (tmp_path / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    store = open_store(tmp_path / "data")
    make_plan(store, [str(tmp_path / "photos")], shard_size=2)
    images = [entry(1, "00000.jpg"), entry(2, "torn.jpg")]
    rows = [{"id": n, "image_id": n, "segmentation": POLYGON} for n in (1, 2)]
    report = import_annotations(
        store, write(tmp_path / "in.json", images, rows), format="coco", created_utc=NOW
    )
    assert (report.num_masks, report.left_out) == (1, {"picture_rejected": 1})


def test_nothing_matched_is_an_error_before_anything_is_written(planned: ObjectStore, tmp_path: Path) -> None:
    before = [info.name for info in planned.list("")]
    paths = write(
        tmp_path / "in.json", [entry(1, "elsewhere/00000.jpg")], [{"image_id": 1, "segmentation": POLYGON}]
    )
    with pytest.raises(InputError, match=r"0 of 1 images are in the dataset; .*elsewhere/00000\.jpg.*photos"):
        import_annotations(planned, paths, format="coco", created_utc=NOW)
    assert [info.name for info in planned.list("")] == before


def test_files_are_read_before_images_are_planned(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text("{}")
    planned: list[int] = []
    with pytest.raises(InputError):
        import_annotations(
            open_store(tmp_path / "data"),
            [tmp_path / "in.json"],
            format="coco",
            created_utc=NOW,
            prepare=lambda: planned.append(1),
        )
    assert planned == []


def test_pictures_that_come_later_are_matched_when_the_file_is_taken_in_again(
    planned: ObjectStore, tmp_path: Path
) -> None:
    images = [entry(1, "00000.jpg"), entry(2, "later/x.jpg")]
    rows = [{"id": n, "image_id": n, "segmentation": POLYGON} for n in (1, 2)]
    paths = write(tmp_path / "in.json", images, rows)
    first = import_annotations(planned, paths, format="coco", created_utc=NOW)
    write_pictures(tmp_path / "later", 1, first=30)
    (tmp_path / "later" / "00030.jpg").rename(tmp_path / "later" / "x.jpg")
    make_plan(planned, [str(tmp_path / "later")], shard_size=2)
    second = import_annotations(planned, paths, format="coco", created_utc=NOW)
    assert (first.num_masks, second.num_masks, second.left_out) == (1, 2, {})
