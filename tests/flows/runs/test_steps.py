"""The steps on real storage: what is pending, what is published when, who else works here."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.flows.config import load_config
from maskmill.flows.report.report import Silence, watching
from maskmill.flows.runs import publishing, steps
from maskmill.storage.dataset.generations import latest
from maskmill.storage.drivers.lease import announce, others
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.workers.published import build_stages, make_spec, publish_dataset, write_inputs

CONFIG = load_config(sets=["run.shard_size=4"])


class Notes(Silence):
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def planned(tmp_path: Path) -> RunSpec:
    """Ten images in three shards, none annotated."""
    write_inputs(tmp_path / "inputs")
    spec = make_spec(tmp_path / "dataset")
    summary = steps.plan_images(spec.root, [str(tmp_path / "inputs")], CONFIG, None)
    assert (summary.num_images, summary.num_shards) == (10, 3)
    return spec


def annotate(spec: RunSpec, *shards: int) -> None:
    stages = build_stages(spec)
    for shard in shards:
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))


def test_shards_are_pending_until_all_their_columns_are_committed(planned: RunSpec) -> None:
    assert steps.pending_shards(planned) == {0: 4, 1: 4, 2: 2}
    assert not steps.is_complete(planned)
    annotate(planned, 1)
    assert steps.pending_shards(planned) == {0: 4, 2: 2}
    annotate(planned, 0, 2)
    assert steps.pending_shards(planned) == {}
    assert steps.is_complete(planned)


def test_a_dataset_without_a_plan_is_not_complete(tmp_path: Path) -> None:
    assert not steps.is_complete(make_spec(tmp_path / "none"))


def test_publishing_again_what_is_there_publishes_nothing(planned: RunSpec) -> None:
    annotate(planned, 0, 1, 2)
    first = publishing.publish_and_verify(planned, CONFIG)
    assert (first.generation, first.is_new, first.rejects) == (1, True, {"not_an_image": 1})
    assert first.masks > 0
    assert first.check.missing == 0
    again = publishing.publish_and_verify(planned, CONFIG)
    assert (again.generation, again.is_new, again.masks) == (1, False, first.masks)


def test_nothing_committed_publishes_nothing_and_counts_all_as_missing(planned: RunSpec) -> None:
    nothing = publishing.publish_and_verify(planned, CONFIG)
    assert (nothing.generation, nothing.is_new, nothing.masks) == (None, False, 0)
    report = steps.make_report(planned.root, steps.Annotated(), nothing, None, seconds=1.0)
    assert (report.images, report.missing, report.sound) == (10, 10, False)


def test_a_run_that_gave_shards_up_never_replaces_a_fuller_generation(tmp_path: Path) -> None:
    full = publish_dataset(tmp_path)
    store = open_store(full.spec.root)
    other = RunSpec(
        root=full.spec.root,
        ingest=full.spec.ingest,
        masks=full.spec.masks,
        segmenter=full.spec.segmenter,
        fingerprints={"images": "0" * 16, "masks": "2" * 16},
    )
    annotate(other, 0, 1)
    kept = publishing.publish_and_verify(other, CONFIG)
    assert (kept.generation, kept.is_new) == (1, False)
    annotate(other, 2)
    assert publishing.publish_and_verify(other, CONFIG).generation == 2
    newest = latest(store)
    assert newest is not None
    assert newest.columns["masks"] == "2" * 16


def test_a_driver_is_told_of_the_other_and_leaves_no_trace(tmp_path: Path) -> None:
    root = str(tmp_path / "dataset")
    store, told = open_store(root), Notes()
    with announce(store, "generate"), watching(told), steps.driving(root):
        assert len(others(store)) == 2
    assert len(told.notes) == 1
    assert "another run works on this dataset" in told.notes[0]
    with watching(told), steps.driving(root):
        pass
    assert len(told.notes) == 1
    assert others(store) == []


def test_inputs_are_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        steps.check_inputs(str(tmp_path / "dataset"), [str(tmp_path / "absent")])
    assert not (tmp_path / "dataset").exists()


def test_asking_for_a_generation_of_nothing_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="maskmill generate"):
        steps.generation_of(str(tmp_path))


def test_equal_settings_have_equal_fingerprints_and_neutral_ones_do_not_count(tmp_path: Path) -> None:
    weights = tmp_path / "any.safetensors"
    weights.write_bytes(b"fingerprints take a file by its bytes, whatever they are")

    def masks_fingerprint(*sets: str) -> str:
        config = load_config(sets=[f"segmenter.weights={weights}", *sets])
        return steps.describe_run("data", config).fingerprints["masks"]

    same = masks_fingerprint()
    assert masks_fingerprint("masks.points_per_batch=8", "segmenter.threads=1", "run.workers=2") == same
    assert masks_fingerprint("masks.points_per_side=8") != same
    assert masks_fingerprint("ingest.jpeg_quality=90") != same
