"""Masks from given boxes, then names for them, through the real builders with nano and a small CLIP."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import names as shapes
from maskmill.flows.runs.steps.annotating import boxes_told
from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.rle import Rle, decode
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.words import BoxSettings, NameSettings
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.errors import InputError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.boxes import check_boxes, read_given_boxes, scaled
from maskmill.workers.reading.words import category_of
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask, make_spec
from maskmill.workers.run.work_settings import WorkSettings
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages, build_stages
from maskmill.workers.stages.names import NAMES
from tests.pipeline.words import tiny_clip

WORDS = ("red circle", "green circle", "blue circle", "yellow circle", "purple circle")


def boxes_of(scene: shapes.Scene, image_id: int) -> list[dict[str, Any]]:
    """COCO annotations of a scene's shapes; the category is the word's place plus 1."""
    rows = []
    for place, (annotation, word) in enumerate(zip(scene.masks.annotations, scene.words, strict=True)):
        x, y, width, height = annotation.bbox_xywh
        box = [x, y, width + 1, height + 1]
        row = {"id": 100 * image_id + place, "image_id": image_id, "bbox": box}
        rows.append({**row, "category_id": WORDS.index(word) + 1})
    return rows


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three scenes and boxes.json: one scene also has a crowd, a box outside and points."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "inputs").mkdir()
    draw = np.random.default_rng(3)
    held: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": place + 1, "name": word} for place, word in enumerate(WORDS)],
    }
    for image_id in range(3):
        scene = shapes.make_scene(draw, WORDS, side=96, num_shapes=3)
        Image.fromarray(scene.image).save(folder / "inputs" / f"{image_id}.png")
        held["images"].append({"id": image_id, "file_name": f"{image_id}.png", "width": 96, "height": 96})
        held["annotations"] += boxes_of(scene, image_id)
    crowd = {"id": 900, "image_id": 0, "bbox": [0, 0, 9, 9], "category_id": 1, "iscrowd": 1}
    outside = {"id": 901, "image_id": 0, "bbox": [200, 5, 9, 9], "category_id": 1}
    points = {"id": 902, "image_id": 0, "point_coords": [[40, 40], [2, 2]], "point_labels": [1, 0]}
    held["annotations"] += [crowd, outside, points]
    (folder / "boxes.json").write_text(json.dumps(held))
    return folder


def make(root: Path, folder: Path, names: NameSettings | None = None, **boxes: Any) -> RunSpec:
    return make_spec(
        str(root),
        ingest=IngestSettings(),
        masks=MaskSettings(points_per_side=2),
        segmenter=SegmenterSettings(device="cpu", threads=1),
        names=names,
        boxes=BoxSettings(file=str(folder / "boxes.json"), **boxes),
    )


def work(spec: RunSpec, attempt: str = "a") -> Stages:
    stages = build_stages(spec)
    for shard in range(stages.plan.num_shards):
        run_shard(stages, ShardTask(shard=shard, attempt=attempt * 16))
    return stages


def contents(stages: Stages, column: str) -> dict[str, Any]:
    version = ColumnVersion(stages.store, column, stages.spec.fingerprints[column])
    return {
        sample.key: json.loads(sample.files["json"])
        for record in version.records()
        for sample in version.read(record)
    }


@pytest.fixture(scope="module")
def made(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Masks from boxes and names by an untrained CLIP."""
    root = tmp_path_factory.mktemp("made")
    clip = tiny_clip.save(tiny_clip.build_clip(), tmp_path_factory.mktemp("clip"))
    make_plan(open_store(root), [str(given / "inputs")], shard_size=2)
    names = NameSettings(model=str(clip), vocabulary=WORDS, dense_side=64, device="cpu", top_k=2)
    return work(make(root, given, names))


def test_boxes_make_masks_with_their_labels(made: Stages, given: Path) -> None:
    masks = contents(made, MASKS)
    held = json.loads((given / "boxes.json").read_text())
    rows = [row for record in masks.values() for row in record["annotations"]]
    assert {row["given_id"] for row in rows} == {row["id"] for row in held["annotations"]} - {900, 901}
    words = {row["id"]: WORDS[row["category_id"] - 1] for row in held["annotations"] if "category_id" in row}
    by_point = [row for row in rows if row["given_id"] == 902]
    assert [row.get("label") for row in by_point] == [None] and "given_box" not in by_point[0]
    assert by_point[0]["point_coords"] == [[40.0, 40.0]]
    assert all(row["label"] == words[row["given_id"]] for row in rows if row["given_id"] != 902)
    assert [record["dropped"] for record in masks.values() if "dropped" in record] == [
        {"crowd": 1, "outside_the_image": 1}
    ]
    assert verify(made.store, deep=True).ok


def test_the_masks_are_the_shapes(made: Stages, given: Path) -> None:
    """nano outlines what the boxes are around: high IoU with the box's own shape, on the whole."""
    ious = []
    for record in contents(made, MASKS).values():
        for row in record["annotations"]:
            if row.get("given_box") is None:
                continue
            x, y, width, height = (int(value) for value in row["given_box"])
            truth = np.zeros((96, 96), bool)
            part = shapes.shape_mask(row["label"].split()[1], width)
            truth[y : y + height, x : x + width] = part[:height]
            mask = decode(Rle.from_coco(row["segmentation"]))
            ious.append((mask & truth).sum() / (mask | truth).sum())
    assert np.median(ious) > 0.6


def test_every_mask_has_names_and_comes_back(made: Stages) -> None:
    masks, names = contents(made, MASKS), contents(made, NAMES)
    stage = made.stages[-1]
    for key, record in names.items():
        assert record["image"] == masks[key]["image"]
        assert [row["id"] for row in record["names"]] == [row["id"] for row in masks[key]["annotations"]]
        assert all(
            len(row["names"]) == 2 and {n["name"] for n in row["names"]} <= set(WORDS)
            for row in record["names"]
        )
        again: Any = stage.decode({"json": json.dumps(record).encode()})
        assert [mask.names[0] for mask in again.masks] == [row["names"][0]["name"] for row in record["names"]]
    back: Any = made.stages[0].decode({"json": json.dumps(next(iter(masks.values()))).encode()})
    assert isinstance(back, AnnotatedImage)


def test_what_came_with_a_box_is_its_masks_category() -> None:
    named = {"names": [{"name": "blue circle", "score": 0.9}]}
    assert category_of({**named, "label": "red circle"}) == "red circle"
    assert category_of(named) == "blue circle"


def test_fingerprints_follow_what_changes_the_output(made: Stages, given: Path, tmp_path: Path) -> None:
    spec = made.spec
    names = spec.settings.of(NameSettings)
    root = Path(spec.root)
    same = make(root, given, dataclasses.replace(names, batch_size=4), batch_size=1)
    assert same.fingerprints == spec.fingerprints
    words = tmp_path / "words.txt"
    words.write_text("\n".join(WORDS))
    assert (
        make(root, given, dataclasses.replace(names, vocabulary=str(words))).fingerprints == spec.fingerprints
    )
    words.write_text("\n".join(WORDS[:3]))
    fewer = make(root, given, dataclasses.replace(names, vocabulary=str(words)))
    assert {c for c in fewer.fingerprints if fewer.fingerprints[c] != spec.fingerprints[c]} == {NAMES}
    scored = make(root, given, names, min_score=0.5)
    assert {c for c in scored.fingerprints if scored.fingerprints[c] != spec.fingerprints[c]} == {
        MASKS,
        NAMES,
    }
    (tmp_path / "boxes.json").write_text((given / "boxes.json").read_text() + " ")
    assert make(root, tmp_path, names).fingerprints[MASKS] != spec.fingerprints[MASKS]
    assert make(root, tmp_path, names).fingerprints[IMAGES] == spec.fingerprints[IMAGES]


def test_boxes_follow_a_picture_that_was_made_smaller(given: Path) -> None:
    found = next(
        image
        for image in read_given_boxes(str(given / "boxes.json")).images
        if image.file_name.endswith("1.png")
    )
    assert found.objects[0].box_xyxy is not None
    half = scaled(found, width=48, height=48)[0].box_xyxy
    np.testing.assert_allclose(half, found.objects[0].box_xyxy / 2)


def test_a_picture_of_another_shape_is_rejected(given: Path, tmp_path: Path) -> None:
    held = json.loads((given / "boxes.json").read_text())
    held["images"][1]["width"] = 200
    (tmp_path / "boxes.json").write_text(json.dumps(held))
    make_plan(open_store(tmp_path / "data"), [str(given / "inputs")], shard_size=3)
    stages = work(
        dataclasses.replace(make(tmp_path / "data", tmp_path), work=WorkSettings(images_per_batch=3))
    )
    version = ColumnVersion(stages.store, MASKS, stages.spec.fingerprints[MASKS])
    rejects = [reject for record in version.records() for reject in record.rejects]
    assert [reject.reason for reject in rejects] == ["boxes_of_another_size"]
    assert len(contents(stages, MASKS)) == 2


def test_pictures_are_matched_by_the_one_rule_and_doubt_is_a_reject(given: Path, tmp_path: Path) -> None:
    scenes = sorted((given / "inputs").iterdir())
    for place, folder in ((0, "a"), (1, "b"), (2, "c")):
        (tmp_path / "inputs" / folder).mkdir(parents=True)
        (tmp_path / "inputs" / folder / ("x.png" if place < 2 else "y.png")).write_bytes(
            scenes[place].read_bytes()
        )
    held = json.loads((given / "boxes.json").read_text())
    box = {"bbox": [10, 10, 30, 30], "category_id": 1}
    images = [{"id": "one", "file_name": "x.png"}, {"id": "two", "file_name": "c\\y.png"}]
    rows = [{"id": 1, "image_id": "one", **box}, {"id": 2, "image_id": "two", **box}]
    (tmp_path / "boxes.json").write_text(json.dumps({**held, "images": images, "annotations": rows}))

    store = open_store(tmp_path / "data")
    make_plan(store, [str(tmp_path / "inputs")], shard_size=2)
    told = check_boxes(read_given_boxes(str(tmp_path / "boxes.json")), load_plans(store))
    assert "1 of 2 images are in the dataset" in told and "(x.png): write their folders too" in told
    stages = work(make(tmp_path / "data", tmp_path))
    version = ColumnVersion(stages.store, MASKS, stages.spec.fingerprints[MASKS])
    rejects = [reject for record in version.records() for reject in record.rejects]
    assert [(reject.key, reject.reason) for reject in rejects] == [
        ("000000001", "ambiguous"),
        ("000000002", "ambiguous"),
    ]
    (record,) = contents(stages, MASKS).values()
    assert [row["given_id"] for row in record["annotations"]] == [2]


def test_boxes_of_no_picture_are_refused_before_work_starts(given: Path, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "elsewhere/0.png"}]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": []}))
    store = open_store(tmp_path / "data")
    make_plan(store, [str(given / "inputs")], shard_size=2)
    with pytest.raises(InputError, match=r"0 of 1 images are in the dataset; 1 are not in it \(elsewhere/0"):
        boxes_told(make(tmp_path / "data", tmp_path))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no_shape"),
        ({"bbox": [0, 0]}, "bad_box"),
        ({"bbox": [0, 0, float("nan"), 1]}, "bad_box"),
        ({"bbox": [0, 0, 5, -5]}, "bad_box"),
        ({"bbox": [0, 0, 1, 1], "category_id": 7}, "no_category"),
        ({"bbox": [0, 0, 1, 1], "score": "high"}, "bad_score"),
        ({"bbox": [0, 0, 1, 1], "score": 0.1}, "low_score"),
        ({"bbox": [0, 0, 1, 1], "iscrowd": 1}, "crowd"),
        ({"point_coords": [[1, 2, 3]]}, "bad_points"),
        ({"point_coords": [[1, 2]], "point_labels": [7]}, "bad_points"),
    ],
)
def test_a_box_that_cannot_be_used_leaves_its_picture_s_others(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    rows = [{"image_id": 1, "bbox": [0, 0, 5, 5], "score": None}, {"id": 9, "image_id": 1, **row}]
    held = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": rows}
    (tmp_path / "b.json").write_text(json.dumps(held))
    (image,) = read_given_boxes(str(tmp_path / "b.json"), min_score=0.5).images
    assert len(image.objects) == 1 and image.dropped == {reason: 1}


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ("nothing", "it is no JSON"),
        ([], "it is no JSON object"),
        ({"images": [], "annotations": []}, "has no images"),
        ({"images": [{"id": 1, "file_name": n} for n in "ab"], "annotations": []}, r"several images \(1\)"),
    ],
)
def test_a_file_that_is_no_detection_file_is_told(tmp_path: Path, held: Any, says: str) -> None:
    (tmp_path / "b.json").write_text(held if isinstance(held, str) else json.dumps(held))
    with pytest.raises(InputError, match=says):
        read_given_boxes(str(tmp_path / "b.json"))


def test_what_cannot_be_is_told_before_work_starts(given: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist: check the path"):
        make(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="keep_candidates has nothing to keep"):
        make_spec(
            str(tmp_path),
            ingest=IngestSettings(),
            masks=MaskSettings(keep_candidates=True),
            segmenter=SegmenterSettings(),
            boxes=BoxSettings(file=str(given / "boxes.json")),
        )
    with pytest.raises(ValueError, match=r"namer: .*nowhere.* does not exist"):
        make(tmp_path, given, NameSettings(model="/nowhere/clip"))


def test_a_trained_namer_names_far_above_chance(given: Path, tmp_path: Path) -> None:
    """Trained here in seconds on coloured shapes; the labels that came with the boxes are the truth."""
    clip = tmp_path / "clip"
    trained = shapes.train_clip(clip, words=WORDS, side=32, width=32, layers=1, steps=80, batch=40)
    assert trained["accuracy"] > 0.8
    make_plan(open_store(tmp_path / "data"), [str(given / "inputs")], shard_size=3)
    names = NameSettings(
        model=str(clip), vocabulary=WORDS, templates=(shapes.TEMPLATE,), dense_side=96, device="cpu"
    )
    stages = work(make(tmp_path / "data", given, names))
    masks, named = contents(stages, MASKS), contents(stages, NAMES)
    right = [
        row.get("label") == best["names"][0]["name"]
        for key, record in masks.items()
        for row, best in zip(record["annotations"], named[key]["names"], strict=True)
        if row.get("label")
    ]
    assert len(right) == 9 and np.mean(right) >= 3 / len(WORDS)  # chance is a third of that
