"""What workers need not load, and what is told of what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from maskmill.flows.config import load_config
from maskmill.flows.report.report import Silence, watching
from maskmill.flows.runs.steps import annotating, planning
from maskmill.workers.run.events import ShardDone
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardReport, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.captions import CAPTIONS
from tests.words import Word
from tests.workers.published import build_stages, publish_dataset

CONFIG = load_config(sets=["captions.model=owner/captioner", "captions.threshold=0.25"])
NUM_ANNOTATED = 9


def caption(spec: RunSpec, *shards: int) -> None:
    stages = build_stages(spec)
    stages.stages = (*stages.stages, Word(CAPTIONS, spec.fingerprints[CAPTIONS], ()))
    for shard in shards:
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:015d}c"))


def test_a_column_added_later_is_all_that_is_pending(tmp_path: Path) -> None:
    published = publish_dataset(tmp_path)
    spec = dataclasses.replace(
        published.spec, fingerprints={**published.spec.fingerprints, CAPTIONS: "2" * 16}
    )
    assert planning.pending_shards(published.spec) == {} and planning.pending_shards(spec) == {
        0: 4,
        1: 4,
        2: 2,
    }
    assert annotating.without_idle(spec, [0, 1, 2]).idle == (IMAGES, MASKS)
    caption(spec, 0, 1)
    assert planning.pending_shards(spec) == {2: 2}
    assert annotating.without_idle(spec, [2]).idle == (IMAGES, MASKS)
    caption(spec, 2)
    assert planning.is_complete(spec)


def test_what_workers_warn_of_is_told_once() -> None:
    told: list[str] = []

    class Notes(Silence):
        def note(self, text: str) -> None:
            told.append(text)

    report = ShardReport(
        shard=0,
        attempt="a",
        num_images=1,
        num_annotated=1,
        num_masks=0,
        rejects={},
        seconds_by_step={},
        wall_s=1.0,
        notes=("captioner: out of memory with 8 together; going on with 4",),
    )
    follower = annotating._Follower({0: 1, 1: 1})
    with watching(Notes()):
        for shard in (0, 1):
            follower.see(ShardDone(report=dataclasses.replace(report, shard=shard), attempts=1))
    assert told == list(report.notes)
