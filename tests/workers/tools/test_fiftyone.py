"""FiftyOne's exports as strangers leave them: right, or refused by sample, label and cure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.dataset.saves import saved_numbers
from maskmill.storage.errors import InputError
from maskmill.workers.tools import fiftyone
from maskmill.workers.tools.take_back import SAME, SAVED
from tests.workers.published import NUM_ANNOTATED, Published
from tests.workers.tools.editors import (
    annotations,
    back,
    exported,
    fiftyone_folder,
    masks_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def sample_edits() -> dict[str, tuple[Callable[[dict[str, Any]], None], str]]:
    line = {"_cls": "Polyline", "label": "roof", "points": [[[0.1, 0.1], [0.5, 0.1]]]}

    def polylines(sample: dict[str, Any]) -> None:
        sample["lines"] = {"_cls": "Polylines", "polylines": [line]}

    def in_place(sample: dict[str, Any]) -> None:
        sample[fiftyone.FIELD] = {"_cls": "Polylines", "polylines": [line]}

    def segmentation(sample: dict[str, Any]) -> None:
        sample["ground_truth"] = {"_cls": "Segmentation", "mask_path": "m.png"}

    def no_field(sample: dict[str, Any]) -> None:
        del sample[fiftyone.FIELD]

    def no_metadata(sample: dict[str, Any]) -> None:
        sample["metadata"] = None

    def a_box(sample: dict[str, Any]) -> None:
        sample[fiftyone.FIELD]["detections"].append({"label": "roof", "bounding_box": [0, 0, 0.5, 0.5]})

    def first(sample: dict[str, Any], **values: Any) -> None:
        sample[fiftyone.FIELD]["detections"][0] |= values

    return {
        "polylines": (polylines, r"its field 'lines' holds Polylines.*exclude_fields\('lines'\)"),
        "in place": (in_place, "its field 'masks' holds Polylines"),
        "segmentation": (segmentation, "its field 'ground_truth' holds Segmentation"),
        "no field": (no_field, "it has no field 'masks': export with it"),
        "no metadata": (no_metadata, r"compute_metadata\(\)"),
        "a box": (a_box, r"detection \d+ \(roof\): its box has no mask: draw one, or take the box out"),
        "far box": (lambda one: first(one, bounding_box=[0, 0, 1e9, 1]), "detection 1 .*0 to 1"),
        "no number": (lambda one: first(one, bounding_box=[0, 0, float("nan"), 1]), "detection 1 .*0 to 1"),
        "no array": (lambda one: first(one, mask={"$binary": {"base64": "eJwDAAAAAAE="}}), "detection 1"),
        "no box": (lambda one: first(one, bounding_box=None), "detection 1"),
        "lost png": (lambda one: first(one, mask=None, mask_path="fields/x.png"), "detection 1 .*x.png"),
    }


@pytest.mark.parametrize("name", sample_edits())
def test_what_is_no_mask_in_fiftyone_is_refused_by_sample_and_label(
    name: str, published: Published, exports: Path, tmp_path: Path
) -> None:
    edit, message = sample_edits()[name]
    path = fiftyone_folder(annotations(exports, "fiftyone", tmp_path / "out"), edit)
    place = re.escape(f"{path / fiftyone.SAMPLES}: images/sa_1.jpg: ")
    with pytest.raises(InputError, match=f"^{place}.*{message}"):
        back(published, path, "fiftyone")
    assert not saved_numbers(published.store)


def test_a_sample_removed_stays_and_a_label_renamed_comes_back(data: Published, tmp_path: Path) -> None:
    def edit(sample: dict[str, Any]) -> None:
        sample[fiftyone.FIELD]["detections"][0]["label"] = "roof"
        sample["predictions"] = {"_cls": "Detections", "detections": []}
        sample["uniqueness"] = 0.5

    path = fiftyone_folder(exported(data, tmp_path / "out", "fiftyone"), edit)
    found = json.loads((path / fiftyone.SAMPLES).read_text())
    found["samples"] = [one for one in found["samples"] if one[fiftyone.KEY] != "000000002"]
    (path / fiftyone.SAMPLES).write_text(json.dumps(found))
    taken = back(data, path, "fiftyone")
    assert taken.pictures == {SAVED: 1, SAME: NUM_ANNOTATED - 2} and taken.absent == 1
    assert taken.masks == {"confirmed": 1, "kept": len(masks_of(data)) - 1, "rejected": 0}
