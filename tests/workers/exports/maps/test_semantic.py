"""Class maps: a pixel is its class's number, in as many bits as the classes need."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmill.workers.exports.chosen.selection import Selection
from maskmill.workers.exports.export import export
from maskmill.workers.exports.maps import semantic
from maskmill.workers.reading.samples import read_annotated
from tests.workers.exports.test_given import imported
from tests.workers.published import NUM_ANNOTATED, Published, publish_dataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


def test_a_pixel_of_a_mask_is_of_its_class(data: Published, tmp_path: Path) -> None:
    report = export(data.store, data.generation, str(tmp_path), format="semantic")
    assert report.num_images == NUM_ANNOTATED
    assert json.loads((tmp_path / "classes.json").read_text()) == {"0": "background", "1": "object"}
    for sample in read_annotated(data.store, data.generation):
        map_HW = np.asarray(Image.open(tmp_path / "masks" / f"sa_{sample.record['image']['image_id']}.png"))
        assert map_HW.dtype == np.uint8
        assert map_HW.shape == (sample.record["image"]["height"], sample.record["image"]["width"])
        assert bool(map_HW.any()) == bool(sample.record["annotations"])


def test_an_imports_categories_are_classes_and_some_can_be_asked_for(tmp_path: Path) -> None:
    store, generation = imported(tmp_path / "data")
    export(store, generation, str(tmp_path / "all"), format="semantic", column="given")
    named = json.loads((tmp_path / "all" / "classes.json").read_text())
    assert "train" in named.values()
    out = tmp_path / "few"
    report = export(store, generation, str(out), format="semantic", column="given", classes=("train",))
    assert json.loads((out / "classes.json").read_text()) == {"0": "background", "1": "train"}
    assert report.left_out["other_class"] > 0
    values = set[int]()
    for path in (out / "masks").iterdir():
        values |= set(np.unique(np.asarray(Image.open(path))).tolist())
    assert values == {0, 1}


def test_more_classes_than_a_byte_take_two(data: Published, tmp_path: Path) -> None:
    classes = (*(f"class {number}" for number in range(300)), "object")
    export(
        data.store,
        data.generation,
        str(tmp_path),
        format="semantic",
        classes=classes,
        class_map={},
    )
    assert len(json.loads((tmp_path / "classes.json").read_text())) == 302
    path = next((tmp_path / "masks").iterdir())
    assert np.asarray(Image.open(path)).dtype in (np.uint16, np.int32)


def test_classes_that_outgrow_a_byte_on_the_way_widen_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a byte held one class: every PNG has two bytes a pixel, and the numbers it would have had."""
    store, generation = imported(tmp_path / "data")
    passes: list[object] = []
    images = Selection.images
    monkeypatch.setattr(Selection, "images", lambda self, **how: passes.append(how) or images(self, **how))
    narrow = export(store, generation, str(tmp_path / "narrow"), format="semantic", column="given")
    assert len(passes) == 1, "the generation is read once"
    monkeypatch.setattr(semantic, "NARROW", 1)
    wide = export(store, generation, str(tmp_path / "wide"), format="semantic", column="given")

    named = [(tmp_path / side / "classes.json").read_text() for side in ("narrow", "wide")]
    assert named[0] == named[1] and len(json.loads(named[0])) > 2
    paths = sorted((tmp_path / "narrow" / "masks").iterdir())
    for path in paths:
        both = [np.asarray(Image.open(tmp_path / side / "masks" / path.name)) for side in ("narrow", "wide")]
        assert both[0].dtype == np.uint8 and both[1].dtype in (np.uint16, np.int32)
        assert (both[0] == both[1]).all()
    written = [
        path for path in (tmp_path / "wide").rglob("*") if path.is_file() and path.name != "export.json"
    ]
    assert wide.size_bytes == sum(path.stat().st_size for path in written) != narrow.size_bytes
