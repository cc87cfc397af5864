"""Images taken in ahead, without a model, are those that a run then annotates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.workers.jobs.ingest import ingest_spec, ingest_stages
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import IMAGES, MASKS, ShardTask, make_spec
from maskmill.workers.shard.turn import run_shard
from tests.fakes import FakeMasks, build_fake_stages

if TYPE_CHECKING:
    from tests.workers.conftest import Dataset


def test_what_was_taken_in_is_annotated_as_it_is(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(5, 3)
    ahead = replace(data.spec, fingerprints={IMAGES: data.spec.fingerprints[IMAGES]})
    report = run_shard(ingest_stages(ahead), ShardTask(shard=0, attempt="a" * 16))
    assert (report.num_images, report.num_annotated, report.num_masks) == (3, 3, 0)
    assert not data.version(MASKS).committed() and data.version(IMAGES).committed() == {0}
    assert run_shard(ingest_stages(ahead), ShardTask(shard=0, attempt="b" * 16)).already_done
    report = run_shard(build_fake_stages(data.spec, FakeMasks()), ShardTask(shard=0, attempt="c" * 16))
    assert data.record(IMAGES, 0).attempt == "a" * 16
    assert report.num_masks > 0 and len(data.contents(MASKS)) == 3


def test_the_column_is_the_one_that_a_run_makes(make_dataset: Callable[..., Dataset]) -> None:
    root, ingest = make_dataset(1, 1).spec.root, IngestSettings(jpeg_quality=80)
    run = make_spec(root, ingest=ingest, masks=MaskSettings(), segmenter=SegmenterSettings())
    assert ingest_spec(root, ingest).fingerprints == {IMAGES: run.fingerprints[IMAGES]}
