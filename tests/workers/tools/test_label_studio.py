"""Label Studio's exports as strangers leave them: right, or refused by task, region and cure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.dataset.saves import saved_numbers, standing_of
from maskmill.storage.errors import InputError
from maskmill.workers.tools.edited import DRAFT, SKIPPED, UNTOUCHED
from maskmill.workers.tools.take_back import BESIDE, SAME, SAVED
from tests.workers.published import NUM_ANNOTATED, Published
from tests.workers.tools.editors import (
    KEY,
    annotations,
    back,
    erase_label_studio,
    exported,
    label_studio_file,
    masks_of,
    ours,
    tasks_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Region = dict[str, Any]


def test_tasks_that_nobody_finished_are_told_of(published: Published, exports: Path, tmp_path: Path) -> None:
    """Deleted, skipped, not opened, left as a draft: such pictures stay as they were, and are counted."""
    path = label_studio_file(annotations(exports, "label_studio", tmp_path / "out"))
    tasks = tasks_of(path)
    del tasks[0]
    tasks[0]["annotations"] = tasks[0]["annotations"][:1]
    tasks[1]["annotations"] = []
    tasks[2] |= {"annotations": [], "drafts": [{"id": 1, "result": []}]}
    path.write_text(json.dumps(tasks))
    taken = back(published, path, "label_studio")
    assert taken.pictures == {SKIPPED: 1, UNTOUCHED: 1, DRAFT: 1, SAME: NUM_ANNOTATED - 4}
    assert taken.absent == 1


def test_each_annotators_last_annotation_is_kept(data: Published, tmp_path: Path) -> None:
    """The newest is in force, the other person's stands beside it."""
    path = label_studio_file(exported(data, tmp_path / "out", "label_studio"), erase_label_studio)
    tasks = tasks_of(path)
    task = ours(tasks)
    (_, newest) = task["annotations"]
    newest["completed_by"] = 7
    earlier = {**newest, "id": 3, "completed_by": 8, "updated_at": "2025-01-15"}
    earlier["result"] = newest["result"][1:]
    first = {**earlier, "id": 4, "updated_at": "2025-01-14", "result": []}
    task["annotations"] = [earlier, newest, first]
    path.write_text(json.dumps(tasks))

    taken = back(data, path, "label_studio")
    assert (taken.pictures[SAVED], taken.pictures[BESIDE]) == (1, 1)
    standing = standing_of(data.store, KEY)
    assert standing.in_force is not None and standing.in_force.who == "user 7"
    assert [one.who for one in standing.beside] == ["user 8"]
    assert len(standing.beside[0].rejected) == 1


def a_shape(region: Region, kind: str, **value: Any) -> Region:
    kept = {name: region[name] for name in ("original_height", "original_width", "to_name")}
    return {**kept, "id": "Ab1", "type": f"{kind}labels", "value": {f"{kind}labels": ["roof"], **value}}


def rectangle(result: list[Region]) -> None:
    result.append(a_shape(result[0], "rectangle", x=10, y=10, width=20, height=20, rotation=0))


def open_polygon(result: list[Region]) -> None:
    result.append(a_shape(result[0], "polygon", points=[[1, 1], [50, 1], [50, 50]], closed=False))


def two_points(result: list[Region]) -> None:
    result.append(a_shape(result[0], "polygon", points=[[1, 1], [50, 1]]))


def two_labels(result: list[Region]) -> None:
    result[0]["value"]["brushlabels"] = ["cat", "dog"]


def a_choice(result: list[Region]) -> None:
    result.append({"id": "Ab1", "type": "choices", "value": {"choices": ["blurred"]}})


def a_relation(result: list[Region]) -> None:
    result.append({"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"})


def no_size(result: list[Region]) -> None:
    del result[0]["original_height"]


def huge(result: list[Region]) -> None:
    result[0] |= {"original_height": 10**6, "original_width": 10**6}


def turned(result: list[Region]) -> None:
    result[0]["image_rotation"] = 90


def cut_short(result: list[Region]) -> None:
    result[0]["value"]["rle"] = result[0]["value"]["rle"][:9]


def of_other_size(result: list[Region]) -> None:
    result.append(a_shape(result[0], "polygon", points=[[1, 1], [50, 1], [50, 50]]))
    result[-1]["original_width"] += 1


def long_ago(result: list[Region]) -> None:
    result[0]["value"]["brushlabels"] = ["x" * 5000]


def one_id_twice(result: list[Region]) -> None:
    result[1]["id"] = result[0]["id"]


LABEL_STUDIO = {
    one_id_twice: "region new0: 2 shapes have this id",
    rectangle: "region Ab1: a rectangle is no mask: use a brush or a polygon, or take it out",
    open_polygon: "region Ab1: its outline is open: close it",
    two_points: "region Ab1: .*three points",
    two_labels: "region new0: it has 2 labels, 'cat' and 'dog': leave one",
    a_choice: "region Ab1: a choices is no mask",
    a_relation: "a relation is no mask",
    no_size: "region new0: it has no 'original_height'",
    huge: "region new0: no picture has 1000000 x 1000000 px",
    turned: "region new0: its picture was turned by 90 degrees: turn it back",
    cut_short: "region new0: brush run lengths end too early",
    of_other_size: "a mask of",
    long_ago: "label",
}


@pytest.mark.parametrize("edit", LABEL_STUDIO, ids=lambda edit: str(edit.__name__))
def test_what_is_no_mask_in_label_studio_is_refused_by_task_and_region(
    edit: Callable[[list[Region]], None], published: Published, exports: Path, tmp_path: Path
) -> None:
    path = label_studio_file(annotations(exports, "label_studio", tmp_path / "out"), edit)
    place = re.escape(f"{path}: task 1 (/data/local-files/?d=images/sa_1.jpg): ")
    with pytest.raises(InputError, match=f"^{place}.*{LABEL_STUDIO[edit]}"):
        back(published, path, "label_studio")
    assert not saved_numbers(published.store)


def test_shape_and_label_may_be_tags_of_their_own(data: Published, tmp_path: Path) -> None:
    """A configuration with Brush and Labels in place of BrushLabels: two results of one id, one mask."""

    def edit(result: list[Region]) -> None:
        first = result[0]
        label = {**first, "type": "labels", "value": {**first["value"], "labels": ["tree"]}}
        first["type"] = "brush"
        del first["value"]["brushlabels"], label["value"]["brushlabels"]
        result.append(label)

    taken = back(
        data, label_studio_file(exported(data, tmp_path / "o", "label_studio"), edit), "label_studio"
    )
    assert taken.masks == {"confirmed": 1, "kept": len(masks_of(data)) - 1, "rejected": 0}
