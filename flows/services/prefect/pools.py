"""Prefect's work pools: where a deployment's runs are started, and what may be said about how.

A process pool of Prefect's takes from every deployment and every run the command line, the folder and the
environment of a process on the worker's machine. Ours takes none of them: a run is the deployment's flow, in
the worker's own environment, and the server refuses a deployment that says otherwise.

It doesn't know Kubernetes' pools beyond making one: there the image and the environment are each
deployment's own, and cluster rights are the fence.
"""

from __future__ import annotations

import re
from typing import Any

POOL = "maskmill"
POOL_NAME = re.compile(r"[A-Za-z0-9._ -]+")
"""What a pool or a deployment may be called: Prefect's pages take it in an address."""
HEARTBEAT_S = 30
RUN_ENVIRONMENT = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
    "PYTHONSAFEPATH": "1",  # modules are ours, not what lies where a worker was started
    "PREFECT_CLIENT_MAX_RETRIES": "10",
    "DO_NOT_TRACK": "1",
}
"""What runs need; the worker of a process pool hands its own environment on."""


def closed_template() -> dict[str, Any]:
    """A process pool's job template that nothing from outside can change.

    The configuration has no placeholder, and no `env` at all: Prefect merges a deployment's into one that is
    written there. Deployments registered before pools were closed carry RUN_ENVIRONMENT: that, and only that,
    is let through, to no effect.
    """
    environment = {
        "type": "object",
        "title": "Environment Variables",
        "description": "Fixed: the worker's own environment is used.",
        "properties": {name: {"type": "string", "const": value} for name, value in RUN_ENVIRONMENT.items()},
        "additionalProperties": False,
    }
    return {
        "job_configuration": {"stream_output": True},
        "variables": {"type": "object", "properties": {"env": environment}, "additionalProperties": False},
    }


def ensure_pool(name: str, kind: str = "process", *, ours: bool = False) -> bool:
    """A work pool of this name is there; a process pool that is made here, or is ours, is closed.

    Args:
        name: of the pool.
        kind: "process" or "kubernetes"; counts where there is none of this name.
        ours: whether an open pool of this name may be closed; one called `POOL` always may.

    Returns:
        Whether the pool is closed: its deployments can say nothing about how they are started.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    closed = closed_template()
    template = closed if kind == "process" else {}
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
            return kind == "process"
        except ObjectAlreadyExists:
            found = client.read_work_pool(name)
        if found.type != "process":
            return False
        if found.base_job_template != closed and (ours or name == POOL):
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=closed))
            return True
        return bool(found.base_job_template == closed)
