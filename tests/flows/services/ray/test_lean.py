"""A run's own Ray has no process that the run doesn't ask for, and holds actors all the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from ray._private import node, utils

from maskmill.flows.services.ray.lean import NOT_STARTED, lean_node

UNASKED = ("dashboard.py", "monitor.py", "log_monitor.py")

STARTED = """
import pathlib, ray
from maskmill.flows.services.ray import cluster

def words(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\\0")
    except OSError:
        return []

cluster.connect(num_cpus=1)
children = pathlib.Path("/proc/self/task").glob("*/children")
for pid in [pid for path in children for pid in path.read_text().split()]:
    print("child", *{pathlib.Path(word).name for word in words(pid)[:4]})
print("answer", ray.get(ray.remote(lambda: 6 * 7).remote(), timeout=60))
ray.shutdown()
"""


def whole() -> list[Callable[..., object]]:
    return [utils.get_dashboard_dependency_error, *(getattr(node.Node, name) for name in NOT_STARTED)]


def test_the_switches_are_where_this_ray_has_them_and_are_turned_back() -> None:
    before = whole()
    with pytest.raises(KeyError), lean_node():
        assert not set(before) & set(whole())
        assert utils.get_dashboard_dependency_error() is not None
        raise KeyError
    assert whole() == before
    assert utils.get_dashboard_dependency_error() is None


@pytest.mark.ray
def test_a_cluster_started_here_has_no_monitor_and_no_dashboard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=240, check=True
    )
    lines = done.stdout.splitlines()
    assert "answer 42" in lines
    started = {word for line in lines if line.startswith("child ") for word in line.split()}
    assert {"gcs_server", "raylet"} <= started
    assert not started & set(UNASKED)
