"""Two drivers' pools on one dataset, on a real Ray: each shard is worked by one of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING

import pytest

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.drivers.lease import announce
from maskmill.storage.drivers.shard_claims import ShardClaims
from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.storage.stores.open import open_store
from maskmill.workers.pool.pool import run_pool
from maskmill.workers.run.events import ShardDone
from maskmill.workers.run.spec import MASKS, Resources
from tests import fakes
from tests.fakes import FakeMasks, build_fake_stages

if TYPE_CHECKING:
    from collections.abc import Generator

    from maskmill.workers.pool.actors import Worker
    from maskmill.workers.run.events import PoolEvent
    from tests.workers.conftest import Dataset

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

ONE_CPU = Resources(num_cpus=1)


def test_two_drivers_work_each_shard_once(make_dataset: Callable[..., Dataset]) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(fakes)
    data = make_dataset(24, 2)
    store = open_store(data.spec.root)
    build = functools.partial(build_fake_stages, masks=FakeMasks(seconds=0.1))

    def start() -> Worker:
        from maskmill.workers.pool.actors import start_worker

        return start_worker(data.spec, ONE_CPU, build)

    def pool(driver_id: str) -> Generator[PoolEvent]:
        feed = ShardFeed(
            dict.fromkeys(range(data.num_shards), 2),
            claims=ShardClaims(store, data.spec.fingerprints, driver_id),
            done=ColumnVersion(store, MASKS, data.spec.fingerprints[MASKS]).committed,
        )
        return run_pool(
            data.spec, feed, resources=ONE_CPU, num_workers=1, make_actor=start, progress_every_s=0.1
        )

    # Both drivers' loops, turn by turn
    with announce(store, "generate") as first, announce(store, "generate") as second:
        seen = list(zip_longest(pool(first.driver_id), pool(second.driver_id)))
    reports = [
        [event.report for event in events if isinstance(event, ShardDone)]
        for events in zip(*seen, strict=True)
    ]
    done = [report.shard for some in reports for report in some]
    assert sorted(done) == list(range(12))
    assert not any(report.lost_race or report.already_done for some in reports for report in some)
    assert all(reports), "neither did all of it alone"
