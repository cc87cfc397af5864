"""Whether the Ray node that this process started still lives: its raylet, and the control service (GCS).

Ray itself doesn't tell: with its raylet gone a driver waits for workers that never come, and with the control
service gone Ray ends the process a minute later by a line of its own. Killing one of the raylet's agents
takes the raylet along. So whoever waits asks here, and before it asks Ray anything.

What it doesn't know: clusters that were joined. They have an end of their own, and Ray tells of their nodes.
"""

from __future__ import annotations

from typing import Any

from maskmill.workers.run.events import NodeLost

NEEDED = {"raylet": "the raylet", "gcs_server": "the control service"}
"""Of Ray's processes; a log monitor or a dashboard may go."""


def check_own_node() -> None:
    """Looks whether Ray's processes that this one started are there.

    Raises:
        NodeLost: one has ended.
    """
    from ray._private import worker

    node: Any = worker._global_node  # what `ray.init` started here; None where it joined
    if node is None:
        return
    gone = sorted({NEEDED[kind] for kind, _ in node.dead_processes() if kind in NEEDED})
    if gone:
        raise NodeLost(
            f"Ray on this machine has ended ({' and '.join(gone)} is gone: killed, or out of memory)"
        )
