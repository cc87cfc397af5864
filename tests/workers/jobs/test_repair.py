"""Damage of every kind, made good again without Ray."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maskmill.storage.care.damage import find_damage
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, latest, publish
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.repair import RepairReport, in_process, repair
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.fakes import FakeMasks, build_fake_stages

if TYPE_CHECKING:
    from tests.workers.conftest import Dataset

CREATED = "2025-01-01T00:00:00+00:00"
build = partial(build_fake_stages, masks=FakeMasks())


@pytest.fixture
def made(make_dataset: Callable[..., Dataset]) -> tuple[ObjectStore, RunSpec, Generation]:
    data = make_dataset(6, 3)
    stages, store = build(data.spec), open_store(data.spec.root)
    for shard in range(data.num_shards):
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))
    generation = publish(
        store, data.spec.fingerprints, settings={}, models={}, totals={"annotated": 6}, created_utc=CREATED
    )
    return store, data.spec, generation


def mend(store: ObjectStore, spec: RunSpec, **more: object) -> RepairReport:
    return repair(store, [spec], in_process(build), deep=True, created_utc=CREATED, **more)  # type: ignore[arg-type]


def row(generation: Generation, column: str, shard: int = 1) -> CommitRecord:
    found = ColumnVersion(generation.store, column, generation.columns[column]).record(shard)
    assert found is not None
    return found


def gone(store: ObjectStore, name: str) -> None:
    store.delete(name)


def cut(store: ObjectStore, name: str) -> None:
    store.put(name, store.read(name)[:-700])


def flipped(store: ObjectStore, name: str) -> None:
    data = bytearray(store.read(name))
    data[len(data) // 2] ^= 1
    store.put(name, bytes(data))


@pytest.mark.parametrize("spoil", [gone, cut, flipped])
@pytest.mark.parametrize(
    ("column", "what"),
    [(IMAGES, "data"), (IMAGES, "record"), (MASKS, "data"), (MASKS, "index"), (MASKS, "record")],
)
def test_damage_is_made_good(
    made: tuple[ObjectStore, RunSpec, Generation],
    spoil: Callable[[ObjectStore, str], None],
    column: str,
    what: str,
) -> None:
    store, spec, generation = made
    old = row(generation, column)
    names = {
        "data": old.data.name,
        "index": old.index.name if old.index else "",
        "record": ColumnVersion(store, column, old.fingerprint).record_name(1),
    }
    spoil(store, names[what])
    assert not verify(store, deep=True).ok
    (damage,) = find_damage(store, deep=True).damages
    assert (damage.shard, damage.column, damage.what) == (1, column, what)
    report = mend(store, spec)
    assert (report.repaired, report.left, report.generation) == (report.found, (), 2)
    after = verify(store, deep=True)
    assert after.ok, after.problems
    new = row(generation, column)
    assert new.data.sha256 == old.data.sha256
    assert new.repair == (0 if (what, spoil) == ("record", gone) else 1)
    masks = row(generation, MASKS)
    assert masks.inputs == {IMAGES: row(generation, IMAGES).sha256}
    if column == IMAGES:
        assert masks.data == row_before(generation, MASKS), "equal images: no mask is made again"
    assert (latest(store).made_by, latest(store).totals) == ("repair", {"annotated": 6})  # type: ignore[union-attr]
    assert mend(store, spec).found == 0


def row_before(generation: Generation, column: str) -> object:
    (found,) = [one for one in generation.rows() if (one.shard, one.column) == (1, column)]
    return found.data


def test_masks_made_from_other_images_are_made_again(made: tuple[ObjectStore, RunSpec, Generation]) -> None:
    store, spec, generation = made
    source = next(Path(store.root).parent.glob("inputs/00004.jpg"))
    flipped(store, row(generation, IMAGES).data.name)
    source.unlink()
    report = mend(store, spec)
    assert (report.found, report.repaired, report.left) == (2, 2, ())
    assert [one.reason for one in row(generation, IMAGES).rejects] == ["source_missing"]
    after = verify(store, deep=True)
    assert after.ok and (after.annotated, after.rejected) == (5, 1), after.problems
    assert latest(store).totals == {"annotated": 5}  # type: ignore[union-attr]


@pytest.mark.parametrize("shard", [0, 1])
def test_images_and_masks_damaged_at_once_are_both_made_good(
    made: tuple[ObjectStore, RunSpec, Generation], shard: int
) -> None:
    store, spec, generation = made
    cut(store, row(generation, IMAGES).data.name)
    gone(store, row(generation, MASKS, shard).data.name)
    report = mend(store, spec)
    assert (report.found, report.repaired, report.left) == (2, 2, ())
    after = verify(store, deep=True)
    assert after.ok and after.annotated == 6, after.problems


def test_a_repair_that_was_not_published_is_published(
    made: tuple[ObjectStore, RunSpec, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, spec, generation = made
    gone(store, row(generation, MASKS).data.name)

    def stopped(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("maskmill.workers.jobs.repair.republish", stopped)
        with pytest.raises(KeyboardInterrupt):
            mend(store, spec)
    assert find_damage(store, deep=True).unpublished == (1,)
    report = mend(store, spec)
    assert (report.found, report.published, report.generation) == (0, True, 2)
    assert verify(store, deep=True).ok


def test_what_no_settings_make_is_left_and_said(made: tuple[ObjectStore, RunSpec, Generation]) -> None:
    store, _, generation = made
    gone(store, row(generation, MASKS).data.name)
    report = repair(store, [], in_process(build), deep=False, created_utc=CREATED)
    assert (report.found, report.repaired, report.published) == (1, 0, False)
    assert "give the --recipe" in report.left[0]


def test_lost_sources_are_said(made: tuple[ObjectStore, RunSpec, Generation]) -> None:
    store, spec, generation = made
    gone(store, row(generation, IMAGES).data.name)
    for source in Path(store.root).parent.glob("inputs/*.jpg"):
        source.unlink()
    report = mend(store, spec)
    assert (report.found, report.repaired) == (1, 0)
    assert "all 3 images of shard 1 are gone" in report.left[0]
