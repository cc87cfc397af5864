"""Counts and clocks of a shard: sums over threads, begun anew for each shard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from maskmill.workers.run.spec import ShardProgress, ShardTask
from maskmill.workers.shard.meter import Meter

TASK = ShardTask(shard=7, attempt="a" * 16)


def test_counts_are_sums_over_threads() -> None:
    meter = Meter()
    meter.begin(TASK)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(400):
            pool.submit(meter.count, images=1, masks=2, rejects=3)
            pool.submit(meter.add_seconds, {"masks.model": 0.25})
    meter.at("000000009")
    assert meter.progress() == ShardProgress(
        shard=7, attempt="a" * 16, key="000000009", images_done=400, masks_done=800, num_rejects=1200
    )
    assert meter.seconds_by_step() == {"masks.model": 100.0}


def test_a_step_counts_its_time_though_it_fails() -> None:
    meter = Meter()
    try:
        with meter.step("images.read"):
            raise OSError
    except OSError:
        pass
    assert list(meter.seconds_by_step()) == ["images.read"]


def test_each_shard_begins_anew_and_none_is_in_work_after_it() -> None:
    meter = Meter()
    meter.begin(TASK)
    meter.count(images=2, masks=5)
    meter.restart()
    assert (meter.progress().images_done, meter.progress().masks_done, meter.progress().shard) == (0, 0, 7)
    meter.add_seconds({"a": 1.0})
    meter.begin(ShardTask(shard=8, attempt="b" * 16))
    assert (meter.seconds_by_step(), meter.progress().shard) == ({}, 8)
    meter.end()
    assert meter.progress() == ShardProgress()
