"""What an import says of its masks reaches every format that can hold it; what can't is counted."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from maskmill.storage.dataset.generations import Generation, latest
from maskmill.storage.errors import NoSuchThing
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.export import export
from maskmill.workers.exports.given import words_of
from maskmill.workers.jobs.import_column import import_annotations
from tests.fakes import write_pictures
from tests.workers.published import publish_dataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NOW = "2025-01-01T00:00:00+00:00"
CROWD_RLE = {"size": [48, 64], "counts": [0, 480, 2592]}
CATEGORIES = [
    {"id": 44, "name": "cup"},
    {"id": 7, "name": "train"},
    {"id": 9, "name": "cup"},
    {"id": 30, "name": "never used"},
]


def box(left: int, top: int, width: int, height: int) -> list[list[int]]:
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(id_: int, image_id: int, category_id: Any, shape: Any, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": id_,
        "image_id": image_id,
        "category_id": category_id,
        "iscrowd": crowd,
        "segmentation": shape,
    }


def imported(folder: Path, categories: list[dict[str, Any]] = CATEGORIES) -> tuple[ObjectStore, Generation]:
    """A cup, a crowd of trains and a mask of an unlisted category; a cup of a second id."""
    write_pictures(folder / "photos" / "roll 1", 1)
    write_pictures(folder / "photos" / "roll 2", 2)
    images = [
        {"id": 500, "file_name": "roll 1/00000.jpg", "width": 64, "height": 48},
        {"id": 501, "file_name": "roll 2/00001.jpg", "width": 64, "height": 48},
    ]
    annotations = [
        annotation(1, 500, 44, box(5, 5, 20, 10)),
        annotation(2, 500, 7, CROWD_RLE, crowd=1),
        annotation(3, 500, 12, box(30, 20, 10, 10)),
        annotation(4, 501, 9, box(2, 2, 9, 9)),
    ]
    given = folder / "given.json"
    given.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    store = open_store(folder / "data")
    make_plan(store, [str(folder / "photos")], shard_size=2)
    import_annotations(store, [given], format="coco", created_utc=NOW)
    generation = latest(store)
    assert generation is not None
    return store, generation


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectStore, Generation]:
    return imported(tmp_path_factory.mktemp("given"))


def test_yolo_has_the_files_classes_in_order_of_ids_and_no_crowds(
    data: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    report = export(*data, str(tmp_path / "out"), format="yolo", column="given")
    names = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"]
    assert names == {0: "train", 1: "cup", 2: "never used", 3: "cup (44)", 4: "12"}
    lines = [
        line.split()[0]
        for path in (tmp_path / "out").rglob("sa_*.txt")
        for line in path.read_text().splitlines()
    ]
    assert sorted(lines) == ["1", "3", "4"]
    assert (report.num_masks, report.left_out) == (3, {"crowd": 1})
    again = export(*data, str(tmp_path / "out"), format="yolo", column="given")
    assert again.already_complete and again.left_out == {"crowd": 1}


def test_sa1b_tars_say_category_and_crowd_and_come_back_in(
    data: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    report = export(*data, str(tmp_path / "out"), format="sa1b", column="given")
    assert (report.num_masks, report.left_out) == (4, {})
    with tarfile.open(tmp_path / "out" / "sa_000000.tar") as tar:
        records = [json.load(tar.extractfile(name)) for name in tar.getnames() if name.endswith(".json")]  # type: ignore[arg-type]
    found = [
        (row["label"], row["category_id"], row["iscrowd"])
        for record in records
        for row in record["annotations"]
    ]
    assert found == [("cup (44)", 44, 0), ("train", 7, 1), ("12", 12, 0), ("cup", 9, 0)]
    assert [record["image"]["source"] for record in records] == [
        "photos/roll 1/00000.jpg",
        "photos/roll 2/00001.jpg",
    ]

    # what is told relative is matched, and keeps its labels
    store = data[0]
    back = import_annotations(
        store, [tmp_path / "out" / "sa_000000.tar"], format="sa1b", column="back", created_utc=NOW
    )
    assert (back.num_images, back.num_masks, back.left_out) == (2, 4, {})
    generation = latest(store)
    assert generation is not None
    export(store, generation, str(tmp_path / "yolo"), format="yolo", column="back")
    names = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())["names"]
    assert list(names.values()) == ["cup (44)", "12", "cup"]


def test_parquet_has_category_and_crowd_as_columns(
    data: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    export(*data, str(tmp_path / "out"), format="hf", column="given")
    rows = pq.read_table(tmp_path / "out" / "data" / "train-00000.parquet").to_pylist()  # type: ignore[no-untyped-call]
    found = [(mask["category"], mask["iscrowd"]) for row in rows for mask in row["masks"]]
    assert found == [("cup (44)", False), ("train", True), ("12", False), ("cup", False)]


@pytest.mark.parametrize("polygons", [False, True])
def test_lvis_keeps_category_ids_and_says_where_pictures_are(
    data: tuple[ObjectStore, Generation], tmp_path: Path, polygons: bool
) -> None:
    out = tmp_path / "out"
    report = export(*data, str(out), format="lvis", column="given", polygons=polygons)
    content = json.loads((out / "annotations.json").read_text())
    assert (report.num_masks, report.left_out) == (3, {"crowd": 1})
    assert [one["category_id"] for one in content["annotations"]] == [44, 45, 9]
    assert {one["id"]: one["name"] for one in content["categories"]} == {
        7: "train",
        9: "cup",
        30: "never used",
        44: "cup (44)",
        45: "12",
    }
    assert content["images"][0]["not_exhaustive_category_ids"] == [7, 44, 45]
    for image in content["images"]:
        folder, name = image["coco_url"].split("/")[-2:]  # as detectron2's get_file_name does
        assert (out / folder / name).is_file()
    for one in content["annotations"]:
        assert isinstance(one["segmentation"], list) == polygons
        assert not polygons or all(len(p) >= 6 and len(p) % 2 == 0 for p in one["segmentation"])
    first = content["annotations"][0]["segmentation"]
    rle = coco_mask.merge(coco_mask.frPyObjects(first, 48, 64)) if polygons else first
    expected = np.zeros((48, 64), np.uint8)
    expected[5:15, 5:25] = 1
    assert (coco_mask.decode(rle) == expected).all()


def test_categories_of_words_get_numbers_where_numbers_are_asked(tmp_path: Path) -> None:
    store, generation = imported(tmp_path, [{"id": "x-cup", "name": "cup"}, {"id": 3, "name": None}])
    export(store, generation, str(tmp_path / "out"), format="lvis", column="given")
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [(one["id"], one["name"]) for one in content["categories"]] == [
        (3, "3"),
        (4, "cup"),
        (5, "44"),
        (6, "7"),
        (7, "12"),
        (8, "9"),
    ]


def test_words_that_are_no_categories_say_nothing() -> None:
    assert words_of({"category_id": None, "label": 5}, {}) == {}
    assert words_of({"category_id": "7", "iscrowd": True}, {7: "train"}) == {
        "label": "train",
        "category_id": 7,
        "iscrowd": 1,
    }


def test_polygons_where_they_are_no_choice_are_refused(
    data: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="yolo has one form"):
        export(*data, str(tmp_path / "out"), format="yolo", polygons=True)
    with pytest.raises(ValueError, match="words it came in"):
        export(*data, str(tmp_path / "out"), format="coco", column="given", polygons=True)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectStore, Generation]:
    """Automatic masks of nine pictures, and a person's import that names three of them."""
    folder = tmp_path_factory.mktemp("beside")
    published = publish_dataset(folder)
    images = [
        {"id": 900, "file_name": "0.jpg", "width": 64, "height": 48, "license": 3},
        {"id": "left-7", "file_name": "1.jpg", "width": 64, "height": 48},
        {"id": 4, "file_name": "picture.png", "width": 72, "height": 40},
    ]
    given = {
        "info": {"description": "theirs"},
        "images": images,
        "annotations": [annotation(1, 900, 31, box(5, 5, 20, 10))],
        "categories": [{"id": 31, "name": "dog", "supercategory": "animal"}, {"id": 2, "name": "car"}],
    }
    (folder / "given.json").write_text(json.dumps(given))
    import_annotations(published.store, [folder / "given.json"], format="coco", by="ann", created_utc=NOW)
    generation = latest(published.store)
    assert generation is not None
    return published.store, generation


def test_automatic_masks_take_an_imports_ids_names_and_categories(
    beside: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    report = export(*beside, str(tmp_path / "out"), format="coco", ids_of="given")
    found = json.loads((tmp_path / "out" / "annotations.json").read_text())
    entries = {entry["file_name"]: entry for entry in found["images"]}
    named = {name: entries[name]["id"] for name in ("0.jpg", "1.jpg", "picture.png")}
    assert named == {"0.jpg": 900, "1.jpg": "left-7", "picture.png": 4}
    assert entries["0.jpg"]["license"] == 3

    # what the import doesn't name is out of its way
    others = [entry["id"] for name, entry in entries.items() if name not in named]
    assert len(others) == report.num_images - 3 > 0 and min(others) > 900
    assert len({str(entry["id"]) for entry in found["images"]}) == len(found["images"])

    # annotations follow; a class of the import is called and numbered as there, a new one comes after all
    assert {row["image_id"] for row in found["annotations"]} <= {entry["id"] for entry in found["images"]}
    classes = {row["image_id"]: row["category_id"] for row in found["annotations"]}
    assert classes.pop(900) == 31 and set(classes.values()) == {32}
    assert [one["id"] for one in found["categories"]] == [2, 31, 32]
    assert found["categories"][1] == {"id": 31, "name": "dog", "supercategory": "animal"}
    assert found["categories"][2]["name"] == "object"
    assert {path.name for path in (tmp_path / "out" / "images").iterdir()} == set(entries)


def test_lvis_and_yolo_take_an_imports_numbers(
    beside: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    export(*beside, str(tmp_path / "lvis"), format="lvis", ids_of="given")
    found = json.loads((tmp_path / "lvis" / "annotations.json").read_text())
    assert {900, 4} <= {entry["id"] for entry in found["images"]}
    places = ["/".join(entry["coco_url"].split("/")[-2:]) for entry in found["images"]]
    assert all((tmp_path / "lvis" / place).exists() for place in places)
    assert {row["category_id"] for row in found["annotations"] if row["image_id"] == 900} == {31}

    export(*beside, str(tmp_path / "yolo"), format="yolo", ids_of="given")
    names = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())["names"]
    assert names == {0: "car", 1: "dog", 2: "object"}


def test_panoptic_takes_an_imports_image_and_category_ids(
    beside: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    export(*beside, str(tmp_path / "out"), format="panoptic", ids_of="given", images=False)
    found = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    ids = [entry["id"] for entry in found["images"]]
    assert {900, "left-7", 4} < set(ids) and len(set(map(str, ids))) == len(ids)
    assert [row["image_id"] for row in found["annotations"]] == ids
    assert [(one["id"], one["name"]) for one in found["categories"]] == [
        (2, "car"),
        (31, "dog"),
        (32, "object"),
    ]
    of = {
        row["image_id"]: {one["category_id"] for one in row["segments_info"]} for row in found["annotations"]
    }
    assert of.pop(900) == {31} and set().union(*of.values()) == {32}
    assert all((tmp_path / "out" / "panoptic" / row["file_name"]).exists() for row in found["annotations"])


def test_a_class_maps_pixels_are_an_imports_category_ids(
    beside: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    export(*beside, str(tmp_path / "out"), format="semantic", ids_of="given", images=False)
    named = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert named == {"0": "background", "2": "car", "31": "dog", "32": "object"}
    seen = set[int]()
    for path in (tmp_path / "out" / "masks").iterdir():
        seen |= set(np.unique(np.asarray(Image.open(path))).tolist())
    assert seen == {0, 31, 32}


def test_parquet_has_an_imports_numbers(beside: tuple[ObjectStore, Generation], tmp_path: Path) -> None:
    export(*beside, str(tmp_path / "out"), format="hf", ids_of="given")
    rows = pq.read_table(tmp_path / "out" / "data" / "train-00000.parquet").to_pylist()  # type: ignore[no-untyped-call]
    by_name = {extra.get("given_name"): row for row in rows if (extra := json.loads(row["extra"] or "{}"))}
    assert (by_name["0.jpg"]["image_id"], by_name["picture.png"]["image_id"]) == (900, 4)
    assert json.loads(by_name["1.jpg"]["extra"])["given_id"] == "left-7"
    numbers = {json.loads(mask["extra"])["category_id"] for mask in by_name["0.jpg"]["masks"]}
    assert numbers == {31}
    others = [row for row in rows if "given_name" not in json.loads(row["extra"] or "{}")]
    assert len(others) == len(rows) - 3 and min(row["image_id"] for row in others) > 900


def test_an_imports_own_masks_keep_its_numbers_in_other_formats(
    data: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    own: dict[str, Any] = {"column": "given", "ids_of": "given", "images": False}
    export(*data, str(tmp_path / "panoptic"), format="panoptic", **own)
    found = json.loads((tmp_path / "panoptic" / "panoptic.json").read_text())
    assert [entry["id"] for entry in found["images"]] == [500, 501]
    classes = [{one["category_id"] for one in row["segments_info"]} for row in found["annotations"]]
    assert classes == [{44, 7, 45}, {9}]

    export(*data, str(tmp_path / "semantic"), format="semantic", **own)
    named = json.loads((tmp_path / "semantic" / "classes.json").read_text())
    assert named == {
        "0": "background",
        "7": "train",
        "9": "cup",
        "30": "never used",
        "44": "cup (44)",
        "45": "12",
    }


@pytest.mark.parametrize("id_", [0, -3, 65_536])
def test_category_ids_that_no_pixel_can_have_are_refused(id_: int, tmp_path: Path) -> None:
    store, generation = imported(tmp_path, [{"id": id_, "name": "odd"}])
    with pytest.raises(ValueError, match=f"'odd' is {id_}, but a pixel's class is 1 to 65,535"):
        export(store, generation, str(tmp_path / "out"), format="semantic", ids_of="given")


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"format": "coco", "ids_of": "nosuch"}, "it has given"),
        ({"format": "yolo", "ids_of": "masks"}, "it has given"),
        ({"format": "coco", "column": "given", "ids_of": "given"}, "leave it off"),
        ({"format": "coco", "column": "given", "ids_of": "masks"}, "it has given"),
        ({"format": "sa1b", "ids_of": "given"}, "coco, lvis, yolo, hf, panoptic, semantic can keep ids"),
    ],
)
def test_ids_of_what_is_no_import_are_refused(
    choices: dict[str, Any], told: str, beside: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    with pytest.raises((ValueError, NoSuchThing), match=told):
        export(*beside, str(tmp_path / "out"), **choices)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
