"""When a generation is published, what it says, and what is never replaced."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from maskmill.flows.config import load_config
from maskmill.flows.runs.generate import make_report
from maskmill.flows.runs.steps import annotating, planning, publishing
from maskmill.pipeline.settings import CaptionSettings, MaskSettings
from maskmill.storage.dataset.generations import Generation, latest
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.columns import Sections
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.captions import CAPTIONS
from tests.words import Word
from tests.workers.published import NUM_ANNOTATED, build_stages, make_spec, publish_dataset, write_inputs

CONFIG = load_config(sets=["run.shard_size=4"])
WITH_CAPTIONS = load_config(sets=["captions.model=owner/captioner", "captions.threshold=0.25"])


@pytest.fixture
def planned(tmp_path: Path) -> RunSpec:
    """Ten images in three shards, none annotated."""
    write_inputs(tmp_path / "inputs")
    spec = make_spec(tmp_path / "dataset")
    summary = planning.plan_images(spec.root, [str(tmp_path / "inputs")], CONFIG, None)
    assert (summary.num_images, summary.num_shards) == (10, 3)
    return spec


def annotate(spec: RunSpec, *shards: int) -> None:
    stages = build_stages(spec)
    for shard in shards:
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))


def caption(spec: RunSpec, *shards: int) -> None:
    stages = build_stages(spec)
    stages.stages = (*stages.stages, Word(CAPTIONS, spec.fingerprints[CAPTIONS], ()))
    for shard in shards:
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:015d}c"))


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
    report = make_report(planned.root, annotating.Annotated(), nothing, None, seconds=1.0)
    assert (report.images, report.missing, report.sound) == (10, 10, False)


def test_a_run_that_gave_shards_up_never_replaces_a_fuller_generation(tmp_path: Path) -> None:
    full = publish_dataset(tmp_path)
    store = open_store(full.spec.root)
    other = RunSpec(root=full.spec.root, fingerprints={"images": "0" * 16, "masks": "2" * 16})
    annotate(other, 0, 1)
    kept = publishing.publish_and_verify(other, CONFIG)
    assert (kept.generation, kept.is_new) == (1, False)
    annotate(other, 2)
    assert publishing.publish_and_verify(other, CONFIG).generation == 2
    newest = latest(store)
    assert newest is not None
    assert newest.columns["masks"] == "2" * 16


def test_a_generation_has_the_runs_columns_settings_models_and_totals(tmp_path: Path) -> None:
    published = publish_dataset(tmp_path)
    spec = dataclasses.replace(
        published.spec,
        fingerprints={**published.spec.fingerprints, CAPTIONS: "2" * 16},
        settings=Sections({"masks": MaskSettings(), "captions": CaptionSettings()}),
    )
    caption(spec, 0, 1, 2)
    told = publishing.publish_and_verify(spec, WITH_CAPTIONS)
    newest = latest(open_store(spec.root))
    assert newest is not None and told.is_new and told.check.ok
    assert dict(newest.columns) == spec.fingerprints
    assert newest.settings["captions"]["threshold"] == 0.25 and "labels" not in newest.settings
    assert newest.models == {"segmenter": "fake", CAPTIONS: "fake"}
    assert newest.totals[CAPTIONS] == newest.totals["annotated"] == NUM_ANNOTATED
    assert {row.column for row in newest.rows()} == {IMAGES, MASKS, CAPTIONS}
    assert told.rejects == {"not_an_image": 1}


def test_who_published_meanwhile_is_merged_with_what_this_run_made(
    planned: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between this run's look and its publication, another one puts other masks everywhere."""
    other = RunSpec(root=planned.root, fingerprints={"images": "0" * 16, "masks": "2" * 16})
    annotate(planned, 0, 1, 2)
    annotate(other, 0, 1, 2)
    publishing.publish_and_verify(planned, CONFIG)
    real = publishing.publish_over

    def late(*args: Any, **how: Any) -> Generation:
        """The other one first, once."""
        monkeypatch.setattr(publishing, "publish_over", real)
        assert publishing.publish_and_verify(other, CONFIG).generation == 2
        return real(*args, **how)

    monkeypatch.setattr(publishing, "publish_over", late)
    assert publishing.publish_and_verify(planned, CONFIG).generation == 3
    newest = latest(open_store(planned.root))
    assert newest is not None and newest.columns["masks"] == planned.fingerprints["masks"]
    assert {row.fingerprint for row in newest.rows() if row.column == "masks"} == {newest.columns["masks"]}
