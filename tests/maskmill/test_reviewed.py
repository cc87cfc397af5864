"""`maskmill.open` reads people's masks where they are, as exports do, and says whose they are."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import maskmill
from maskmill.storage.dataset.generations import publish
from maskmill.storage.dataset.saves import Base
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.import_column import import_annotations
from maskmill.workers.reading.survey import sample_images
from maskmill.workers.reviews.column import publish_saves
from maskmill.workers.reviews.keep import Start, Work, keep
from maskmill.workers.run.spec import MASKS, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.masks.grid import GridMasks
from tests.fakes import NEEDS_MEMORY, FakeMasks, write_pictures
from tests.workers.published import make_spec
from tests.workers.train.training_set import publish_scenes, write_coco

NOW = "2025-01-01T00:00:00+00:00"
ONE, TWO = "000000001", "000000002"


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Four pictures in two shards, the first of them by Ana."""
    publish_scenes(tmp_path, count=4)
    store = open_store(tmp_path / "dataset")
    known = write_coco(tmp_path / "known", first=0, count=1)
    import_annotations(store, [known.coco], format="coco", by="Ana", created_utc=NOW)
    return store.root


def test_a_reviewed_picture_has_its_people_s_masks(root: str) -> None:
    dataset = maskmill.open(root)
    assert [sample.made_by for sample in dataset] == ["person", *["automatic"] * 3]
    assert dataset[ONE].masks.made_by == ("person",) * 3
    assert dataset[TWO].masks.made_by == ("automatic",) * 3
    machine = maskmill.open(root, prefer="automatic")
    assert {sample.made_by for sample in machine} == {"automatic"}
    with pytest.raises(ValueError, match="prefer"):
        maskmill.open(root, prefer="persons")


@pytest.mark.parametrize("how", [{}, {"prefer": "automatic"}, {"column": "review"}])
def test_as_many_are_counted_as_are_read(root: str, how: dict[str, str]) -> None:
    dataset = maskmill.open(root, **how)
    keys = [sample.key for sample in dataset]
    assert len(dataset) == len(keys) == (1 if "column" in how else 4), "null is no review"
    assert sorted(one["__key__"] for one in dataset.webdataset(shuffle=2)) == keys
    assert len(pickle.loads(pickle.dumps(dataset))) == len(keys)


def test_a_picture_that_has_masks_by_people_alone_is_read_and_drawn(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 3, special={1: NEEDS_MEMORY})
    spec = make_spec(tmp_path / "dataset")
    store = open_store(spec.root)
    make_plan(store, [str(tmp_path / "in")], shard_size=3)
    stage = GridMasks(FakeMasks(), fingerprint=spec.fingerprints[MASKS], models={})
    run_shard(Stages(spec, store, load_plans(store), (stage,)), ShardTask(shard=0, attempt="0" * 16))
    publish(store, spec.fingerprints, settings={}, models={}, totals={}, created_utc=NOW)
    assert len(maskmill.open(store.root)) == 2

    image = {"image_id": 2, "width": 64, "height": 48, "file_name": f"{TWO}.jpg"}
    start = Start(key=TWO, image=image, rows=(), base=Base(generation=1))
    keep(store, start, Work(who="Ana", tool="page", masks=[], finished=True), created_utc=NOW)
    generation = publish_saves(store, created_utc=NOW)
    assert generation is not None
    dataset = maskmill.open(store.root)
    assert len(dataset) == len(list(dataset)) == len(list(dataset.webdataset())) == 3
    assert dataset[TWO].made_by == "person"
    assert [one.key for one in sample_images(store, generation, 9)] == [sample.key for sample in dataset]
