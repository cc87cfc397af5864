"""Which settings make a damaged column again; the work itself is done in this process, not on Ray."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.runs import repair as runs
from maskmill.flows.runs.repair import look_for_damage, repair
from maskmill.flows.runs.steps.annotating import Annotated
from maskmill.flows.runs.steps.planning import describe_run
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.storage.care.verify import verify
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.repair import in_process
from maskmill.workers.run.spec import RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.fakes import FakeMasks, build_fake_stages, write_pictures

CONFIG = load_config("nano", sets=["run.shard_size=2", "masks.points_per_side=8"])
build = partial(build_fake_stages, masks=FakeMasks())


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """A dataset published by real settings, with one tar of masks gone."""
    root = str(tmp_path / "dataset")
    write_pictures(tmp_path / "inputs", 4)
    make_plan(open_store(root), [str(tmp_path / "inputs")], shard_size=2)
    spec = describe_run(root, CONFIG)
    for shard in range(2):
        run_shard(build(spec), ShardTask(shard=shard, attempt=f"{shard:016d}"))
    publish_and_verify(spec, CONFIG)
    next(Path(root).glob("masks/*/data/000001.*.tar")).unlink()
    return root


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """The runs that the pool was asked for."""
    specs: list[RunSpec] = []

    def annotate(spec: RunSpec, config: RunConfig, shards: Mapping[int, int]) -> Annotated:
        specs.append(spec)
        return Annotated(failed_shards=in_process(build)(spec, shards))

    monkeypatch.setattr(runs, "annotate_shards", annotate)
    return specs


def test_recorded_settings_make_it_again(damaged: str, asked: list[RunSpec]) -> None:
    found = look_for_damage(damaged, deep=False)
    assert [(damage.shard, damage.column) for damage in found.damages] == [(1, "masks")]
    report = repair(damaged, found, deep=False, given=None)
    assert (report.repaired, report.left, report.generation) == (1, (), 2)
    assert [spec.repairs for spec in asked] == [{1: {"masks": 1}}]
    assert asked[0].idle == ("images",)
    assert verify(open_store(damaged), deep=True).ok


def test_settings_at_hand_come_first_and_others_are_said_to_be_no_help(
    damaged: str, asked: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "list_generations", lambda store: [])
    found = look_for_damage(damaged, deep=False)
    other = load_config("nano", sets=["masks.points_per_side=9"])
    report = repair(damaged, found, deep=False, given=other)
    assert (report.repaired, report.published, asked) == (0, False, [])
    assert "give the --recipe" in report.left[0]
