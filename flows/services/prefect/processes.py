"""Which process a flow run lives in: noted with Prefect, so that lost_runs.py can tell when it is gone."""

from __future__ import annotations

import os
import socket

from maskmill.storage.drivers.lease import process_lives


def note_process() -> None:
    """Writes into the current flow run which process it is; nothing outside of one."""
    from prefect import runtime
    from prefect.client.orchestration import get_client

    if runtime.flow_run.id:
        with get_client(sync_client=True) as client:
            client.update_flow_run(runtime.flow_run.id, infrastructure_pid=own_process())


def own_process() -> str:
    """This process, as runs note it: host:pid."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_gone(process: str | None) -> bool:
    """Whether a noted process was one of this machine's and is no more; unknown ones are not."""
    host, _, pid = (process or "").rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    return not process_lives(int(pid))
