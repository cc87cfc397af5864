"""A piece of SA-1B on a clock: workers begin before the plan is made, and two drivers share the shards."""

from __future__ import annotations

import pytest

from benchmarks.in_parts import Asked, plan_and_work, two_drivers
from maskmill.storage.drivers.shard_claims import ShardClaims


def test_workers_begin_within_a_minute_and_stay_busy() -> None:
    """The ratio of planning to work is SA-1B's: 75 minutes to a day, 128 GPUs."""
    asked = Asked(tars=120, shard_size=60, gpus=42)
    found = plan_and_work(asked)
    assert found.shards == asked.tars * asked.images_a_tar // asked.shard_size and found.twice == 0
    assert found.parts > 1 and found.first_s <= 60
    assert found.busy >= 0.95


def test_a_planner_slower_than_the_workers_makes_them_wait_for_no_more_than_its_bytes() -> None:
    found = plan_and_work(Asked(tars=60, shard_size=60, gpus=64, image_s=0.05, gigabytes_a_second=0.05))
    assert found.parts > 5 and found.first_s <= 60
    assert found.wall_s < 1.15 * found.planned_s


def test_two_drivers_share_the_shards_and_lose_little() -> None:
    found = two_drivers(Asked(tars=400, gpus=16, drivers=2))
    assert found.shards == 200 and found.twice <= 0.05 * 200
    assert found.speed >= 0.9
    assert found.foretold >= 0.85, "workers take in ahead what they get"
    assert found.claim_calls["put_if_absent"] < 4 * 200


def test_without_claims_two_drivers_do_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShardClaims, "take", lambda claims, shard: True)
    found = two_drivers(Asked(tars=100, gpus=8, drivers=2))
    assert found.twice == found.shards == 50
