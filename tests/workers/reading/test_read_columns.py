"""Columns made from columns: what a stage is given, fresh or read back, and what happens when one is lost."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord, first_rejects
from maskmill.storage.errors import DamagedObject
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.in_hand import last_announced
from maskmill.workers.run.spec import IMAGES, MASKS, ShardReport, ShardTask
from maskmill.workers.shard.turn import CRASHED, run_shard
from maskmill.workers.stages.base import Picture, StageResult
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.captions import CAPTIONS
from maskmill.workers.stages.labels import LABELS
from tests.fakes import NEEDS_MEMORY, FakeMasks, Pixels, build_fake_stages
from tests.words import Word

if TYPE_CHECKING:
    from tests.workers.conftest import Dataset

MakeDataset = Callable[..., "Dataset"]
A, B = "a" * 16, "b" * 16


def with_words(data: Dataset, captions: str = "2" * 16, labels: str = "3" * 16) -> Dataset:
    columns = {**data.spec.fingerprints, CAPTIONS: captions, LABELS: labels}
    return dataclasses.replace(data, spec=dataclasses.replace(data.spec, fingerprints=columns))


def build(data: Dataset, masks: FakeMasks | None = None) -> tuple[Stages, Word, Word]:
    stages = build_fake_stages(data.spec, masks or FakeMasks())
    captions = Word(CAPTIONS, data.spec.fingerprints[CAPTIONS], ())
    labels = Word(LABELS, data.spec.fingerprints[LABELS], (MASKS, CAPTIONS))
    stages.stages = (*stages.stages, captions, labels)
    return stages, captions, labels


def turn(stages: Stages, attempt: str = A, **task: object) -> ShardReport:
    return run_shard(stages, ShardTask(**{"shard": 0, "attempt": attempt, **task}))  # type: ignore[arg-type]


class NoMasks(FakeMasks):
    def __call__(self, images: Sequence[Pixels]) -> list[AnnotatedImage]:
        raise AssertionError("the masks are there already")


def test_a_stage_is_given_what_earlier_ones_made(make_dataset: MakeDataset) -> None:
    data = with_words(make_dataset(3, 3))
    report = turn(build(data)[0])
    num_masks = {
        key: len(json.loads(files["json"])["annotations"]) for key, files in data.contents(MASKS).items()
    }
    texts = {key: json.loads(files["json"])["text"] for key, files in data.contents(LABELS).items()}
    assert texts == {key: f"masks={number} captions=0" for key, number in num_masks.items()}
    record = data.record(LABELS, 0)
    assert record.inputs == {name: data.record(name, 0).sha256 for name in (IMAGES, MASKS, CAPTIONS)}
    assert data.record(CAPTIONS, 0).inputs == {IMAGES: data.record(IMAGES, 0).sha256}
    assert record.models == {LABELS: "fake"} and record.index is None
    assert (report.num_annotated, report.lost_race) == (3, False)


def test_only_what_is_missing_is_made_and_the_rest_read_back(make_dataset: MakeDataset) -> None:
    data = with_words(make_dataset(3, 3))
    turn(build(data)[0])
    before = {path: path.stat().st_mtime_ns for path in Path(data.spec.root).rglob("*.*")}
    newer = with_words(data, labels="4" * 16)
    stages, captions, labels = build(newer, NoMasks())
    report = turn(stages, B)
    assert captions.seen == [] and len(labels.seen) == 3 and not report.lost_race
    assert newer.contents(LABELS) == data.contents(LABELS)
    assert newer.record(LABELS, 0).inputs == data.record(LABELS, 0).inputs
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
def test_what_an_input_column_rejects_is_rejected_with_a_reason(
    make_dataset: MakeDataset, fresh: bool, one_by_one: bool
) -> None:
    data = with_words(make_dataset(4, 4, special={1: NEEDS_MEMORY}, images_per_batch=3))
    stages, captions, labels = build(data)
    captions.fails_on = "000000003"
    if not fresh:
        stages.stages = stages.stages[:2]
        turn(stages, one_by_one=one_by_one)
        stages, captions, labels = build(data, NoMasks())
    report = turn(stages, B, one_by_one=one_by_one)
    assert data.rejects(MASKS) == {"000000002": "out_of_memory"}
    assert data.rejects(CAPTIONS) == {"000000003": "out_of_memory"}
    assert data.rejects(LABELS) == {"000000002": "no_masks", "000000003": "no_captions"}
    assert set(labels.seen) == {"000000001", "000000004"}
    assert report.rejects == {"out_of_memory": 2} and report.num_annotated == 2
    for column in (CAPTIONS, LABELS):
        record = data.record(column, 0)
        assert record.num_read == record.num_written + len(record.rejects) == 4
    check = verify(open_store(data.spec.root), deep=True)
    assert (check.annotated, check.rejected, check.problems) == (2, 2, ())
    assert first_rejects([data.record(LABELS, 0)])["000000002"].detail == "masks rejected it: out_of_memory"


@pytest.mark.parametrize("lost", [MASKS, CAPTIONS])
def test_what_was_derived_from_a_lost_column_is_redone_from_the_winners(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    data = with_words(make_dataset(3, 3))
    commit = ColumnVersion.commit

    def raced(version: ColumnVersion, record: CommitRecord) -> CommitRecord:
        if record.column == lost and record.attempt == A:
            monkeypatch.setattr(ColumnVersion, "commit", commit)
            others, captions, _ = build(data)
            captions.reads = ()
            others.stages = tuple(stage for stage in others.stages if stage.column == lost)
            turn(others, B)
        return commit(version, record)

    monkeypatch.setattr(ColumnVersion, "commit", raced)
    stages, _, labels = build(data)
    report = turn(stages)
    attempts = {column: data.record(column, 0).attempt for column in (IMAGES, MASKS, CAPTIONS, LABELS)}
    assert attempts == {IMAGES: A, MASKS: A, CAPTIONS: A, LABELS: A, lost: B} and report.lost_race
    assert len(labels.seen) == 6  # derived again
    assert data.record(LABELS, 0).inputs[lost] == data.record(lost, 0).sha256
    tars = {path.name for path in Path(data.spec.root).rglob("*.tar")}
    assert tars == {f"000000.{A}.tar", f"000000.{B}.tar"} and len(data.contents(LABELS)) == 3
    assert len(list(Path(data.spec.root).rglob("*.tar"))) == 4  # nothing of the losers is left


def test_a_damaged_input_column_ends_the_turn(make_dataset: MakeDataset) -> None:
    data = with_words(make_dataset(3, 3))
    stages, _, _ = build(data)
    stages.stages = stages.stages[:2]
    turn(stages)
    tar = Path(data.spec.root, data.record(MASKS, 0).data.name)
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    with pytest.raises(DamagedObject):
        turn(build(data)[0], B)
    assert not data.version(LABELS).committed()


def test_one_by_one_names_the_stage_that_has_the_image_in_hand(make_dataset: MakeDataset) -> None:
    data = with_words(make_dataset(2, 2))
    stages, _, labels = build(data)

    def dies(pictures: Sequence[Picture]) -> list[StageResult]:
        raise KeyboardInterrupt

    labels.run = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        turn(stages, one_by_one=True)
    named = last_announced(open_store(data.spec.root), 0, A)
    assert named is not None and (named.column, named.key) == (LABELS, "000000001")
    turn(build(data)[0], B, one_by_one=True, skip_keys={"000000001": LABELS})
    assert data.rejects(LABELS) == {"000000001": CRASHED} and data.rejects(CAPTIONS) == {}
    assert len(data.contents(MASKS)) == 2


def test_a_column_that_some_shards_lack_is_counted_and_is_no_damage(make_dataset: MakeDataset) -> None:
    data = with_words(make_dataset(5, 3))
    turn(build(data)[0])
    stages, _, _ = build(data)
    stages.stages = stages.stages[:1]
    turn(stages, shard=1)
    check = verify(open_store(data.spec.root))
    assert check.ok and (check.annotated, check.lacking) == (5, {CAPTIONS: 2, LABELS: 2})
