"""`status --watch`: looks again, with pace and time left from storage alone."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from maskmill.flows.report.status import watched
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.fakes import write_pictures
from tests.workers.published import build_stages, make_spec


def test_the_pace_is_what_was_committed_between_two_looks(tmp_path: Path) -> None:
    write_pictures(tmp_path / "inputs", 6)
    spec = make_spec(tmp_path / "data")
    make_plan(open_store(spec.root), [str(tmp_path / "inputs")], shard_size=2)
    stages, clock = build_stages(spec), iter([0.0, 10.0, 20.0])
    shards = iter([0, 1])

    def sleep(seconds: float) -> None:
        assert seconds == 5.0
        shard = next(shards)
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))

    looks = list(islice(watched(spec.root, every_s=5.0, clock=lambda: next(clock), sleep=sleep), 3))
    assert [look["images_committed"] for look in looks] == [0, 2, 4]
    assert [look["images_per_s"] for look in looks] == [None, 0.2, 0.2]
    assert [look["left_s"] for look in looks] == [None, 20.0, 10.0]
    assert looks[2]["columns"][1]["committed"] == 2
