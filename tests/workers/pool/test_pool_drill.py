"""Losing a whole node. In a process of its own, which starts its own cluster of three nodes."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from maskmill.workers.run.spec import IMAGES, MASKS

if TYPE_CHECKING:
    from tests.workers.conftest import Dataset


def run_drill(name: str, data: Dataset, tmp_path: Path) -> dict[str, Any]:
    """What a drill of this folder prints."""
    (tmp_path / "spec").write_bytes(pickle.dumps(data.spec))
    drill = subprocess.run(
        [sys.executable, "-m", f"tests.workers.pool.{name}", tmp_path / "spec", str(data.num_shards)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        timeout=280,
        text=True,
        check=False,
    )
    assert drill.returncode == 0, drill.stderr
    seen: dict[str, Any] = json.loads(drill.stdout.splitlines()[-1])
    return seen


@pytest.mark.drill
@pytest.mark.ray
def test_a_lost_node_is_not_held_against_its_shard_and_one_that_joins_is_used(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    data = make_dataset(240, 6)
    seen = run_drill("node_drill", data, tmp_path)
    assert not seen["failed"], seen
    assert sorted(shard for shard, _ in seen["done"]) == list(range(40))
    held = [shard for shard, _ in seen["lost"] if shard is not None]  # others were starting or between shards
    assert len(held) == 1, seen
    done_again = sum(attempts - 1 for _, attempts in seen["done"])
    assert done_again <= 1, "only the shard in flight on the lost node"
    assert min(seen["ready"][seen["ready"].index(2) :]) == 1 and seen["ready"][-1] == 2, "shrunk, then grown"
    for column in (IMAGES, MASKS):
        assert len(data.contents(column)) == 240


@pytest.mark.drill
@pytest.mark.ray
def test_an_autoscaler_brings_all_nodes_at_once_and_takes_them_away(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    data = make_dataset(120, 6)
    seen = run_drill("autoscaling_drill", data, tmp_path)
    assert seen["before"] == 0 and not seen["wrong"], seen
    assert seen["asked"] == seen["most"] == 3, "every worker waits before the first node is there"
    assert sorted(seen["done"]) == list(range(20))
    assert seen["after"] == 0, "no node stays idle"
    assert len(data.contents(MASKS)) == 120
