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
    SCHEMA,
    STARTED,
    ExportedFile,
    ExportError,
    ExportPlan,
    ExportReport,
    begin,
    finish,
)

PLAN = ExportPlan(
    format="sa1b", dataset="data", generation=3, manifest_sha256="5" * 64, options={"max_images": 2}
)


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


def as_older_versions_wrote(name: str, target: ObjectStore, dataset: str) -> None:
    """A record that named the dataset by its whole address, without the manifest's digits."""
    record = json.loads(target.read(name))
    del record["manifest_sha256"]
    target.put(name, json.dumps({**record, "dataset": dataset}).encode())


@pytest.mark.parametrize("whole", [True, False])
def test_an_older_versions_export_is_known_again(target: ObjectStore, whole: bool) -> None:
    begin(target, PLAN)
    if whole:
        target.put("a.tar", b"abc")
        finish(target, PLAN, report(target))
    name = FINISHED if whole else STARTED
    as_older_versions_wrote(name, target, "/home/somebody/data")
    assert (begin(target, PLAN) is not None) == whole
    other = {**json.loads(target.read(name)), "dataset": "/home/somebody/other"}
    target.put(name, json.dumps(other).encode())
    with pytest.raises(ExportError, match="its dataset is 'other', this one's is 'data'"):
        begin(target, PLAN)


def test_what_is_half_done_by_an_older_schema_is_refused_and_what_is_whole_stays(target: ObjectStore) -> None:
    newer = dataclasses.replace(PLAN, options={**PLAN.options, SCHEMA: 2})
    begin(target, PLAN)
    with pytest.raises(ExportError, match=r"its options is .* choose an empty or new destination"):
        begin(target, newer)
    target.put("a.tar", b"abc")
    finish(target, PLAN, report(target))
    found = begin(target, newer)
    assert found is not None and found.already_complete


def test_no_record_names_a_place_of_the_makers_machine(target: ObjectStore) -> None:
    begin(target, PLAN)
    assert target.root not in target.read(STARTED).decode()
