"""A shard begun ahead of its turn becomes what it would have become; a wrong guess costs nothing but work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maskmill.workers.run.spec import IMAGES, MASKS, ShardReport, ShardTask
from maskmill.workers.shard import next_shard
from maskmill.workers.shard.taken_in import TakenIn, normalised
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages
from tests.fakes import FakeMasks, build_fake_stages
from tests.workers.shard.test_turn import data_files

if TYPE_CHECKING:
    from tests.workers.conftest import Dataset

MakeDataset = Callable[..., "Dataset"]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the images that were taken in ahead, in order."""
    keys: list[str] = []

    def counted(source, ingest, meter) -> TakenIn:  # type: ignore[no-untyped-def]
        keys.append(source.planned.key)
        return normalised(source, ingest, meter)

    monkeypatch.setattr(next_shard, "normalised", counted)
    return keys


def turn(stages: Stages, shard: int, likely_next: int | None = None, **task: object) -> ShardReport:
    return run_shard(
        stages,
        ShardTask(shard=shard, attempt=str(shard) * 16, likely_next=likely_next, **task),  # type: ignore[arg-type]
    )


def test_the_next_shard_begins_with_what_was_taken_in_ahead_and_becomes_the_same(
    make_dataset: MakeDataset, tmp_path: Path, ahead: list[str]
) -> None:
    data = make_dataset(8, 4)
    stages = build_fake_stages(data.spec, FakeMasks())
    turn(stages, 0, likely_next=1)
    report = turn(stages, 1)
    count = max(stages.work.decode_threads, stages.work.images_per_batch)
    assert ahead == [f"{key:09d}" for key in range(5, 9)][:count] and ahead
    assert report.num_annotated == 4 and report.seconds_by_step["images.read"] > 0
    with_it = data_files(data.spec.root)

    shutil.rmtree(Path(data.spec.root))
    plain = make_dataset(8, 4)
    stages = build_fake_stages(plain.spec, FakeMasks())
    turn(stages, 0)
    turn(stages, 1)
    assert data_files(plain.spec.root) == with_it


def test_a_wrong_guess_is_dropped(make_dataset: MakeDataset, ahead: list[str]) -> None:
    data = make_dataset(9, 3)
    stages = build_fake_stages(data.spec, FakeMasks())
    turn(stages, 0, likely_next=1)
    turn(stages, 2)
    turn(stages, 1)
    assert sorted(data.contents(MASKS)) == [f"{key:09d}" for key in range(1, 10)]


def test_what_is_bad_is_rejected_in_its_own_turn(
    make_dataset: MakeDataset, tmp_path: Path, ahead: list[str]
) -> None:
    data = make_dataset(6, 3)
    (tmp_path / "inputs" / "00003.jpg").write_bytes(b"no picture")
    stages = build_fake_stages(data.spec, FakeMasks())
    turn(stages, 0, likely_next=1)
    report = turn(stages, 1)
    assert ahead, "it was met ahead of its turn"
    assert (report.num_images, report.num_annotated, sum(report.rejects.values())) == (3, 2, 1)
    assert [reject.key for reject in data.record(IMAGES, 1).rejects] == ["000000004"]


def test_what_is_committed_is_not_taken_in_again(make_dataset: MakeDataset, ahead: list[str]) -> None:
    data = make_dataset(6, 3)
    turn(build_fake_stages(data.spec, FakeMasks()), 1)
    stages = build_fake_stages(data.spec, FakeMasks())
    turn(stages, 0, likely_next=1)
    assert turn(stages, 1).already_done
    assert ahead == []


def test_a_turn_image_by_image_takes_nothing_from_ahead(make_dataset: MakeDataset, ahead: list[str]) -> None:
    data = make_dataset(6, 3)
    stages = build_fake_stages(data.spec, FakeMasks())
    turn(stages, 0, likely_next=1, one_by_one=True)
    assert ahead == []
    assert turn(stages, 1, one_by_one=True).num_annotated == 3
