"""Warnings of the pipeline reach the driver with the shard's report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.machine.batches import Batches
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.shard.warnings import MAX_NOTES, Notes, listen
from tests.fakes import FakeMasks, Pixels, build_fake_stages

if TYPE_CHECKING:
    from tests.workers.conftest import Dataset


def test_a_halved_batch_is_told_in_the_report(make_dataset: Callable[..., Dataset]) -> None:
    batches = Batches(2, "segmenter")

    def one_by_one(images: Sequence[Pixels]) -> list[AnnotatedImage]:
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return FakeMasks()(images)

    class Halving(FakeMasks):
        def __call__(self, images: Sequence[Pixels]) -> list[AnnotatedImage]:
            return batches.run(images, one_by_one)

    stages = build_fake_stages(make_dataset(4, 4, images_per_batch=2).spec, Halving())
    stages.notes = listen()
    stages.notes.take()
    report = run_shard(stages, ShardTask(shard=0, attempt="a" * 16))
    assert report.notes == ("segmenter: out of memory with 2 together; going on with 1",)
    again = run_shard(stages, ShardTask(shard=0, attempt="b" * 16))
    assert again.already_done and again.notes == ()


def test_a_text_is_kept_once_and_not_without_end() -> None:
    notes = listen()
    assert listen() is notes and isinstance(notes, Notes)
    notes.take()
    log = logging.getLogger("maskmill.pipeline.anything")
    log.info("not for people")
    for number in range(2 * MAX_NOTES):
        log.warning("note %d", number // 2)
    log.warning("one too many")
    assert notes.take() == tuple(f"note {number}" for number in range(MAX_NOTES)) and notes.take() == ()
