"""An image that is forgotten while a worker has it in hand stays out, whenever the mark comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maskmill.storage.care import forget as forgetting
from maskmill.storage.care.forget import forget
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord
from maskmill.workers.run.spec import IMAGES, MASKS, ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.fakes import FakeMasks, build_fake_stages

if TYPE_CHECKING:
    from tests.workers.conftest import Dataset

MakeDataset = Callable[..., "Dataset"]

KEY, NOW = "000000002", "2026-01-01T00:00:00+00:00"


@contextmanager
def marked_at_commit(
    monkeypatch: pytest.MonkeyPatch, data: Dataset, column: str, *, after: bool
) -> Iterator[None]:
    """Has the image forgotten by another process's `forget`, once, right before or after a commit's write."""
    store = data.version(column).store
    put_if_absent, done = type(store).put_if_absent, []

    def put(self: object, name: str, content: bytes) -> bool:
        due = name.startswith(f"{column}/") and "/commits/" in name and not done
        done.extend([name] if due else [])
        if due and not after:
            forget(store, [KEY], created_utc=NOW)
        won = put_if_absent(self, name, content)  # type: ignore[arg-type]
        if due and after:
            forgetting._mark(store, [KEY])  # and then it looks, and is refused: the worker's driver lives
        return won

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "put_if_absent", put)
        yield
    assert done


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("column", [IMAGES, MASKS])
def test_it_stays_out_of_all_columns(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, column: str, after: bool
) -> None:
    data = make_dataset(4, 4)
    store = data.version(IMAGES).store
    stages = build_fake_stages(data.spec, FakeMasks())
    with marked_at_commit(monkeypatch, data, column, after=after):
        report = run_shard(stages, ShardTask(shard=0, attempt="a" * 16))
    assert (report.num_images, report.num_annotated, report.rejects) == (4, 3, {"forgotten": 1})
    for name in (IMAGES, MASKS):
        assert list(data.contents(name)) == ["000000001", "000000003", "000000004"]
    forget(store, [KEY], created_utc=NOW)
    found = verify(store, deep=True)
    assert found.ok, found.problems
    tars = [path for path in Path(store.root).glob("*/*/data/*") if KEY.encode() in path.read_bytes()]
    assert tars == []


def test_a_worker_older_than_the_mark_reads_it(make_dataset: MakeDataset) -> None:
    data = make_dataset(8, 4)
    stages = build_fake_stages(data.spec, FakeMasks())
    run_shard(stages, ShardTask(shard=1, attempt="b" * 16))
    forget(data.version(IMAGES).store, [KEY], created_utc=NOW)
    run_shard(stages, ShardTask(shard=0, attempt="a" * 16))
    version: ColumnVersion = data.version(IMAGES)
    record: CommitRecord | None = version.record(0)
    assert record is not None and record.repair == 0, "nothing had to be taken back"
    assert data.rejects(IMAGES) == {KEY: "forgotten"}
