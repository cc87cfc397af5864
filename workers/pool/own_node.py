"""Whether the Ray that this process works with still lives, asked before Ray itself is asked anything.

    started here   the raylet and the control service (GCS), by their processes
    joined         the control service, by its port

Ray itself doesn't tell: with its raylet gone a driver waits for workers that never come, and with the control
service gone every question about nodes or actors hangs, until Ray ends the process a minute later by a line
of its own. Killing one of the raylet's agents takes the raylet along. A control service that was joined may
be started anew (with a database of its own, as on Kubernetes): it has `SILENT_S` to come back.

What it doesn't know: a driver by `ray://`. Its proxy on the head ends with the head, and Ray says so.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from maskmill.workers.run.events import ClusterLost, NodeLost

NEEDED = {"raylet": "the raylet", "gcs_server": "the control service"}
"""Of Ray's processes; a log monitor or a dashboard may go."""

SILENT_S = 40.0
"""Ray itself ends a process whose control service is gone for 60 s."""

LOOK_TIMEOUT_S = 3.0
LOOK_EVERY_S = 1.0


def check_own_node() -> None:
    """Looks whether Ray's processes that this one started are there; of a cluster that it joined, whether its
    control service answers, and waits a while for it where it doesn't.

    Raises:
        NodeLost: one that was started here has ended.
        ClusterLost: the joined cluster's control service has been silent for `SILENT_S`.
    """
    from ray._private import worker

    node: Any = worker._global_node  # what `ray.init` started here, or the raylet it joined by
    if node is None:
        return
    if not node.is_head():
        _wait_for(node.gcs_address)
        return
    gone = sorted({NEEDED[kind] for kind, _ in node.dead_processes() if kind in NEEDED})
    if gone:
        raise NodeLost(
            f"Ray on this machine has ended ({' and '.join(gone)} is gone: killed, or out of memory)"
        )


def _wait_for(address: str) -> None:
    """Returns as soon as something listens at a control service's HOST:PORT.

    Raises:
        ClusterLost: nothing did for `SILENT_S`.
    """
    began = time.monotonic()
    while not _listens(address):
        if time.monotonic() - began >= SILENT_S:
            raise ClusterLost(
                f"the Ray cluster at {address} is lost: its control service has not answered "
                f"for {SILENT_S:.0f} s, so its head has ended or cannot be reached. What is committed is "
                "kept: start the cluster again (or name another), then run the same command again"
            )
        time.sleep(LOOK_EVERY_S)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_TIMEOUT_S):
            return True
    except OSError:
        return False
