"""What edits are held against: the masks that an editor was given, and no others; all or nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskmill.storage.dataset.saves import saved_numbers
from maskmill.storage.errors import InputError
from maskmill.workers.tools import brush_rle, cvat
from maskmill.workers.tools.take_back import SAME
from tests.workers.published import NUM_ANNOTATED, Published
from tests.workers.tools.editors import (
    FILES,
    annotations,
    as_cvat_exports,
    back,
    cvat_file,
    erase_label_studio,
    exported,
    label_studio_file,
    masks_of,
    ours,
    tasks_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Region = dict[str, Any]


NARROW = {
    "masks_where": {"masks_where": "area_px >= {largest}"},
    "classes": {"classes": ("thing",), "class_map": {"*": "thing"}},
}


@pytest.mark.parametrize("choices", NARROW.values(), ids=list(NARROW))
@pytest.mark.parametrize("format", FILES)
def test_masks_that_an_export_left_out_stay(
    format: str, choices: dict[str, Any], published: Published, tmp_path: Path
) -> None:
    """An export of some masks, or under other names, and nobody's edit of it: nothing changes."""
    if "masks_where" in choices:
        largest = max(int(mask.sum()) for mask in masks_of(published).values())
        choices = {"masks_where": choices["masks_where"].format(largest=largest)}
    path = FILES[format][0](exported(published, tmp_path / "out", format, **choices), None)
    if format == "cvat":
        as_cvat_exports(path)
    assert back(published, path, format).pictures == {SAME: NUM_ANNOTATED}
    assert not saved_numbers(published.store)


def test_a_mask_that_was_given_and_is_gone_is_rejected_and_no_other(data: Published, tmp_path: Path) -> None:
    areas = {mask_id: int(mask.sum()) for mask_id, mask in masks_of(data).items()}
    largest = max(areas.values())
    out = exported(data, tmp_path / "out", "label_studio", masks_where=f"area_px >= {largest}")
    taken = back(data, label_studio_file(out, list.clear), "label_studio")
    assert taken.masks["rejected"] == sum(area == largest for area in areas.values())
    assert taken.masks["kept"] == sum(area < largest for area in areas.values()) > 0


def test_a_label_renamed_by_class_map_is_no_new_label_and_a_changed_one_is(
    data: Published, tmp_path: Path
) -> None:
    out = exported(data, tmp_path / "out", "label_studio", classes=("thing",), class_map={"*": "thing"})

    def edit(result: list[Region]) -> None:
        for region in result[:1]:
            region["value"]["brushlabels"] = ["tree"]

    # Masks without any word are of no class: this dataset's are all such, and "*" is for words
    assert not ours(tasks_of(label_studio_file(out, edit)))["predictions"][0]["result"]

    plain = exported(data, tmp_path / "plain", "label_studio")
    path = label_studio_file(plain)
    tasks = tasks_of(path)
    task = ours(tasks)
    given = task["data"]["maskmill"]["given"]
    task["data"]["maskmill"]["given"] = dict.fromkeys(given, "thing")
    for place, region in enumerate(task["annotations"][1]["result"]):
        region["value"]["brushlabels"] = ["thing" if place else "tree"]
    path.write_text(json.dumps(tasks))
    taken = back(data, path, "label_studio")
    assert taken.masks == {"confirmed": 1, "kept": len(given) - 1, "rejected": 0}


def test_edits_of_an_older_generation_know_it(published: Published, exports: Path, tmp_path: Path) -> None:
    """CVAT's file tells the generation by its labels' attributes."""
    path = cvat_file(annotations(exports, "cvat", tmp_path / "out"))
    as_cvat_exports(path)
    assert {image.generation for image in cvat.read(path)} == {1}
    path.write_text(path.read_text().replace("generation 1", "generation 7"))
    with pytest.raises(ValueError, match="no generation 7"):
        back(published, path, "cvat")


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("choices", [{"column": "given"}, {"prefer": "automatic"}], ids=str)
def test_masks_that_edits_cannot_come_back_to_are_not_given(
    format: str, choices: dict[str, Any], published: Published, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="come back to the masks in force"):
        exported(published, tmp_path / "out", format, **choices)


def test_nothing_is_kept_of_files_in_which_anything_is_wrong(
    published: Published, exports: Path, tmp_path: Path
) -> None:
    """A mask of another size in the last picture: the first ones' edits are not kept either."""
    path = label_studio_file(annotations(exports, "label_studio", tmp_path / "out"), erase_label_studio)
    tasks = tasks_of(path)
    last = next(task for task in reversed(tasks) if task["annotations"][1]["result"])
    other_size(last["annotations"][1]["result"])
    path.write_text(json.dumps(tasks))
    with pytest.raises(InputError, match=f"task {last['id']} .*a mask of"):
        back(published, path, "label_studio")
    assert not saved_numbers(published.store)


def other_size(result: list[Region]) -> None:
    """The last mask, of a picture that is wider."""
    result.append({**copy.deepcopy(result[-1]), "id": "Ab1"})
    result[-1]["original_width"] += 1
    size = (result[-1]["original_height"], result[-1]["original_width"])
    result[-1]["value"]["rle"] = brush_rle.encode(np.ones(size, np.bool_))
