"""COCO's panoptic files as panopticapi reads them. It is in no package registry: its rules are restated.

panopticapi/utils.py::rgb2id: id = R + 256 G + 256^2 B. evaluation.py: every id of a segments_info is in
its PNG and every id of the PNG but 0 (void) is in segments_info; category ids are listed; areas are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from maskmill.pipeline.annotation import from_sa1b
from maskmill.pipeline.rle import decode
from maskmill.workers.exports.export import export
from maskmill.workers.exports.maps.panoptic import rgb_of
from maskmill.workers.reading.samples import read_annotated
from tests.workers.published import NUM_ANNOTATED, Published, publish_dataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def rgb2id(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """panopticapi/utils.py::rgb2id."""
    wide = colours.astype(np.uint32)
    ids: NDArray[np.uint32] = wide[:, :, 0] + 256 * wide[:, :, 1] + 256 * 256 * wide[:, :, 2]
    return ids


def segments(folder: Path, name: str = "panoptic") -> Iterator[tuple[dict[str, Any], dict[int, Any]]]:
    """Each annotation with the masks of its segments, checked as panopticapi/evaluation.py checks them."""
    file = json.loads((folder / f"{name}.json").read_text())
    categories = {one["id"]: one for one in file["categories"]}
    assert all(one["isthing"] in (0, 1) for one in categories.values())
    images = {one["id"]: one for one in file["images"]}
    for entry in file["annotations"]:
        ids_HW = rgb2id(np.asarray(Image.open(folder / name / entry["file_name"])))
        image = images[entry["image_id"]]
        assert ids_HW.shape == (image["height"], image["width"])
        told = {one["id"]: one for one in entry["segments_info"]}
        assert len(told) == len(entry["segments_info"])
        labels, counts = np.unique(ids_HW, return_counts=True)
        shown = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        shown.pop(0, None)
        assert shown == {id_: one["area"] for id_, one in told.items()}
        assert all(one["category_id"] in categories for one in told.values())
        yield entry, {id_: ids_HW == id_ for id_ in told}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


def test_every_pixel_is_of_the_smallest_mask_that_has_it(data: Published, tmp_path: Path) -> None:
    report = export(data.store, data.generation, str(tmp_path), format="panoptic")
    found = {entry["image_id"]: masks for entry, masks in segments(tmp_path)}
    assert len(found) == report.num_images == NUM_ANNOTATED
    assert sum(map(len, found.values())) == report.num_masks > 0
    for sample in read_annotated(data.store, data.generation):
        ours = [decode(one.segmentation) for one in from_sa1b(sample.record).annotations]
        theirs = found[sample.record["image"]["image_id"]]
        for place, mask_HW in enumerate(ours):
            smaller = [other for at, other in enumerate(ours) if (-other.sum(), at) > (-mask_HW.sum(), place)]
            visible = mask_HW & ~np.any(smaller, axis=0) if smaller else mask_HW
            assert (theirs.get(place + 1, np.zeros_like(mask_HW)) == visible).all()


def test_boxes_are_of_what_shows(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path), format="panoptic", images=False)
    assert not (tmp_path / "images").exists()
    for entry, masks in segments(tmp_path):
        for one in entry["segments_info"]:
            x, y, width, height = one["bbox"]
            box_HW = np.zeros_like(masks[one["id"]])
            box_HW[y : y + height, x : x + width] = True
            assert not (masks[one["id"]] & ~box_HW).any()
            assert masks[one["id"]].any(axis=0).sum() <= width
            assert masks[one["id"]][y].any() and masks[one["id"]][:, x].any()


def test_ids_beyond_a_byte_keep_their_value() -> None:
    ids_HW = np.array([[0, 1, 255, 256], [65_535, 65_536, 99_999, 2**24 - 1]], np.uint32)
    assert (rgb2id(rgb_of(ids_HW)) == ids_HW).all()
