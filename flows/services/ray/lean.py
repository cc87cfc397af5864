"""A Ray node of one run's own, without the processes that nobody asked for.

`ray.init` starts an autoscaler's monitor, a dashboard's server (with `include_dashboard=False` too) and a log
monitor, and waits for each to answer before its raylet starts; the raylet waits for an agent that serves the
dashboard. On two cores that is 4 s of a run's start and 5 s of its CPU. A run on one machine has no
autoscaler, shows its own progress, and takes no log lines from its workers.

Ray has all of it as switches, but `ray.init` hands none through; so they are turned where it looks: what
`pip install ray` without [default] lacks is taken to be missing, and three starts do nothing.

It doesn't know clusters that others start, nor `maskmill up`: they keep what Ray's own commands start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

NOT_STARTED = ("start_monitor", "start_log_monitor", "start_api_server")
"""Methods of Ray's node: the autoscaler's monitor, the log monitor, the dashboard's server."""


@contextmanager
def lean_node() -> Iterator[None]:
    """A node that `ray.init` starts inside the block has only what holds actors: GCS, raylet, small agents.

    A Ray that has these switches elsewhere starts whole: slower, and right.
    """
    from ray._private import node, utils

    owners: list[tuple[Any, str, Callable[..., object]]] = [
        (node.Node, name, _nothing) for name in NOT_STARTED
    ]
    with ExitStack() as stack:
        for owner, name, instead in [*owners, (utils, "get_dashboard_dependency_error", _not_installed)]:
            if hasattr(owner, name):
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, instead)
        yield


def _nothing(*args: object, **kwargs: object) -> None:
    """In place of a start."""


def _not_installed() -> ImportError:
    return ImportError("the dashboard's agent isn't wanted")
