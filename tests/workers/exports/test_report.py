"""How a destination is claimed, found complete, and refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.report import (
    FINISHED,
    STARTED,
    ExportedFile,
    ExportError,
    ExportPlan,
    ExportReport,
    begin,
    finish,
)

PLAN = ExportPlan(format="sa1b", dataset="/data", generation=3, options={"max_images": 2})


@pytest.fixture
def target(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path)


def report(target: ObjectStore) -> ExportReport:
    file = ExportedFile(name="a.tar", size_bytes=3, sha256="aa", num_images=1, num_masks=2)
    return ExportReport(
        format="sa1b", destination=target.root, generation=3, num_images=1, num_masks=2,
        rejects={"too_small": 1}, num_unannotated=0, files=(file,), size_bytes=3, seconds=1.5,
    )  # fmt: skip


def test_a_complete_export_is_reported_and_nothing_is_written(target: ObjectStore) -> None:
    assert begin(target, PLAN) is None
    assert begin(target, PLAN) is None  # taken up again
    target.put("a.tar", b"abc")
    finish(target, PLAN, report(target))
    found = begin(target, PLAN)
    assert found == dataclasses.replace(report(target), seconds=0.0, already_complete=True)
    assert {one.name for one in target.list()} == {"a.tar", FINISHED}


@pytest.mark.parametrize(
    "change, told",
    [
        ({"generation": 4}, "its generation is 3, this one's is 4"),
        ({"options": {"max_images": 9}}, "its options is"),
        ({"format": "hf"}, "its format is 'sa1b', this one's is 'hf'"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_another_export_is_left_alone(
    target: ObjectStore, change: dict[str, object], told: str, whole: bool
) -> None:
    begin(target, PLAN)
    if whole:
        target.put("a.tar", b"abc")
        finish(target, PLAN, report(target))
    other = dataclasses.replace(PLAN, **change)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=f"holds another export: {told}"):
        begin(target, other)


def test_what_is_no_export_is_left_alone(target: ObjectStore) -> None:
    target.put("holiday.jpg", b"x")
    with pytest.raises(ExportError, match=r"is not empty \(it holds holiday\.jpg\)"):
        begin(target, PLAN)
    assert [one.name for one in target.list()] == ["holiday.jpg"]


@pytest.mark.parametrize(("size", "told"), [(None, "a.tar is missing"), (2, "a.tar has 2 bytes, not 3")])
def test_a_complete_export_that_lost_a_file_says_so(target: ObjectStore, size: int | None, told: str) -> None:
    begin(target, PLAN)
    finish(target, PLAN, report(target))
    if size is not None:
        target.put("a.tar", b"x" * size)
    with pytest.raises(ExportError, match=told):
        begin(target, PLAN)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({**dataclasses.asdict(PLAN), "files": 3})])
def test_a_record_that_is_not_ours_is_an_error(target: ObjectStore, content: str) -> None:
    target.put(FINISHED, content.encode())
    with pytest.raises(ExportError, match=r"export\.json: not (JSON|a record of ours)"):
        begin(target, PLAN)
    assert STARTED not in {one.name for one in target.list()}
