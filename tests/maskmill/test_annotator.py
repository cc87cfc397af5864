"""`maskmill.annotate` gives the masks of `generate`, and says what is wrong with what is no picture."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import maskmill
from maskmill.pipeline.scenes.scenes import generate_scene
from maskmill.pipeline.segmenters.student import StudentConfig, build_student, save_student
from maskmill.pipeline.settings import MaskSettings
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.errors import InputError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.recipe import ConfigError, mask_settings, segmenter_settings
from maskmill.workers.run.spec import MASKS, ShardTask, make_spec
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from tests.fakes import Pixels, jpeg_bytes
from tests.workers.published import turned_jpeg

COARSE = {"points_per_side": 6, "min_area_px": 0, "drop_small": False}
"""Few prompts, for the tests' time; the thresholds stay the recipe's."""


@pytest.fixture(scope="module")
def scene() -> Pixels:
    """A picture with objects, twice as wide as high."""
    return generate_scene(3, (128, 256)).image


@pytest.fixture
def photo(scene: Pixels, tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_bytes(scene))
    return path


def rows(masks: maskmill.Masks) -> list[dict[str, Any]]:
    """Annotations without ids, which are the dataset's."""
    left_out = ("id", "parent")
    return [
        {name: value for name, value in row.items() if name not in left_out}
        for row in masks.record["annotations"]
    ]


def test_masks_are_those_that_generate_makes(photo: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "dataset")
    make_plan(store, [str(photo)], shard_size=4)
    spec = make_spec(
        store.root,
        ingest=IngestSettings(),
        masks=mask_settings("nano", COARSE),
        segmenter=segmenter_settings("nano"),
    )
    run_shard(build_stages(spec), ShardTask(shard=0, attempt="0" * 16))
    version = ColumnVersion(store, MASKS, spec.fingerprints[MASKS])
    record = version.record(0)
    assert record is not None
    (sample,) = version.read(record)
    generated = maskmill.Masks(record=json.loads(sample.files["json"]), picture=lambda: decode_image(b""))

    found = maskmill.annotate(photo, masks=COARSE)
    assert len(found) > 0
    assert rows(found) == rows(generated)
    assert [each.parent for each in found] == [each.parent for each in generated]


def test_thresholds_are_the_recipes_and_changes_are_changes(scene: Pixels) -> None:
    annotator = maskmill.Annotator(masks=COARSE)
    assert annotator.mask_settings == mask_settings("nano", COARSE)
    assert annotator.mask_settings.predicted_iou == mask_settings("nano").predicted_iou < 0.88
    sams = {"predicted_iou": MaskSettings().predicted_iou, "stability": MaskSettings().stability}
    assert len(annotator(scene)) > len(maskmill.annotate(scene, masks={**COARSE, **sams}))


def test_arrays_paths_pillow_and_lists_are_one_picture(scene: Pixels, photo: Path) -> None:
    pixels = decode_image(photo.read_bytes())
    with Image.open(photo) as picture:
        found = maskmill.annotate([photo, str(photo), photo.as_uri(), pixels, picture], masks=COARSE)
    assert [rows(masks) for masks in found] == [rows(found[0])] * 5
    assert [masks.record["image"]["image_id"] for masks in found] == [1, 2, 3, 4, 5]
    assert [masks.record["image"]["file_name"] for masks in found[:4]] == [
        str(photo),
        str(photo),
        photo.as_uri(),
        "image-4.jpg",
    ]
    assert maskmill.annotate([], masks=COARSE) == []
    (each,) = maskmill.Annotator(masks=COARSE).each(path for path in [photo])
    assert rows(each) == rows(found[0])


def test_a_photo_that_lies_on_its_side_is_turned(scene: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(turned_jpeg(scene))
    found = maskmill.annotate(path, masks=COARSE)
    assert (found.width, found.height) == (128, 256)
    assert found.picture().shape == (256, 128, 3)
    assert rows(found) == rows(maskmill.annotate(decode_image(path.read_bytes()), masks=COARSE))


def test_a_picture_on_s3_is_fetched(photo: Path, s3_bucket: str) -> None:
    store = open_store(s3_bucket)
    store.put("photos/a.jpg", photo.read_bytes())
    found = maskmill.annotate(f"{s3_bucket}/photos/a.jpg", masks=COARSE)
    assert rows(found) == rows(maskmill.annotate(photo, masks=COARSE))
    with pytest.raises(InputError, match=r"absent\.jpg does not exist"):
        maskmill.annotate(f"{s3_bucket}/photos/absent.jpg", masks=COARSE)


GREY = np.zeros((8, 9), np.uint8)
NO_PICTURES = [
    (GREY, r"uint8\[8, 9\] is no picture.*np\.stack"),
    (np.zeros((8, 9, 4), np.uint8), r"image\[\.\.\., :3\]"),
    (np.zeros((3, 8, 9), np.uint8), r"channels come last"),
    (np.zeros((2, 8, 9, 3), np.uint8), r"list\(batch\)"),
    (np.zeros((8, 9, 3), np.float32), r"float32\[8, 9, 3\].*round"),
    (np.zeros((0, 9, 3), np.uint8), r"\[0, 9, 3\] is no picture"),
    (7, "type int is no picture"),
    (None, "type NoneType is no picture"),
    (b"\xff\xd8", "type bytes is no picture"),
    ("absent.jpg", r"absent\.jpg does not exist"),
    ("http://host/a.jpg", "download it first"),
    ("s3://bucket", "names no object"),
    (".", "is a folder"),
]


@pytest.mark.parametrize(("thing", "words"), NO_PICTURES)
def test_what_is_no_picture_is_refused_with_the_cure(thing: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        maskmill.annotate(thing, masks=COARSE)


def test_a_list_is_looked_at_before_work_starts(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskmill.annotator.load_segmenter", lambda settings: pytest.fail("work started"))
    with pytest.raises(InputError, match="image 2 of 2: absent"):
        maskmill.annotate([photo, "absent.jpg"], recipe="nano", device="cpu", masks=COARSE)


def test_a_damaged_file_is_named_with_its_reason(tmp_path: Path, photo: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(photo.read_bytes()[:900])
    with pytest.raises(InputError, match=r"cut\.jpg: is no image that can be used \(truncated"):
        maskmill.annotate(path, masks=COARSE)
    picture = Image.open(io.BytesIO(path.read_bytes()))
    with pytest.raises(InputError, match="the picture: is no image"):
        maskmill.annotate(picture, masks=COARSE)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"recipe": "nan"}, "did you mean 'nano'"),
        ({"masks": {"point_per_side": 3}}, "did you mean 'points_per_side'"),
        ({"masks": {"predicted_iou": 3}}, "predicted_iou=3 is out of range"),
        ({"model": "vit_x"}, "model='vit_x' is unknown"),
        ({"device": "gpu"}, "device='gpu' is unknown"),
        ({"weights": "absent.pth"}, r"absent\.pth does not exist"),
        ({"recipe": "sa1b"}, r"sam_vit_h_4b8939\.pth does not exist"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(scene: Pixels, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        maskmill.annotate(scene, **given)


def test_the_error_of_a_setting_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"masks\.rows"):
        maskmill.Annotator(masks={"rows": 3})


def test_the_model_is_kept_and_changed_weights_are_seen(tmp_path: Path) -> None:
    import torch

    files = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        files.append(tmp_path / f"{seed}.safetensors")
        save_student(build_student(StudentConfig()), StudentConfig(), files[-1])
    weights = tmp_path / "student.safetensors"
    shutil.copy(files[0], weights)
    first = maskmill.Annotator(weights=weights)._segmenter
    assert maskmill.Annotator(weights=weights, masks=COARSE)._segmenter is first
    shutil.copy(files[1], weights)
    assert maskmill.Annotator(weights=weights)._segmenter is not first
