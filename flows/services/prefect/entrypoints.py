"""Deployments of an earlier maskmill, whose flows have moved to other modules since.

A deployment names its flow by module ("flows.relabel.relabel"). When the module has another name, Prefect's
worker can't import it: each scheduled run crashes with ModuleNotFoundError. `maskmill up` looks for such
deployments: those of the work pool that it serves, whose runs use this very maskmill, get the new name and
run on with their schedules and parameters; of others it says how to register them again.

Known by their tag and by the flow's own name, which is the last part. It doesn't know who else serves a pool.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from maskmill.flows.services.prefect.deploy import FLOWS, NO_NAME, absolute, dataset_name
from maskmill.flows.services.prefect.register import load_flow, ours

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse


def mend_entrypoints(pool: str) -> Iterator[str]:
    """Gives deployments of `pool` their flows' present names; says what was done or left, a sentence each."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    with get_client(sync_client=True) as client:
        for found, flow in list(ours(client)):
            now = entrypoint_of(flow) if flow in FLOWS else found.entrypoint
            if found.entrypoint == now:
                continue
            told = (
                f"deployment {flow}/{found.name}: its flow is {found.entrypoint}, an earlier maskmill's name"
            )
            if found.work_pool_name == pool:
                client.update_deployment(found.id, DeploymentUpdate(entrypoint=now))
                yield f"{told}; changed to {now}"
            else:
                yield f"{told}; {_cure(found, flow)}"


def _cure(found: DeploymentResponse, flow: str) -> str:
    pool = shlex.quote(str(found.work_pool_name))
    dataset = str(found.parameters.get("dataset", "DATASET"))
    own = found.name.removeprefix(dataset_name(absolute(dataset))).removeprefix("-")  # `deploy` adds the rest
    name = f" --name {shlex.quote(own)}" if own and own != NO_NAME else ""
    words = f"{shlex.quote(dataset)} --flow {flow}{name} --pool {pool}"
    return (
        f"its runs crash where work pool {pool} has this maskmill. To register it again: maskmill deploy "
        f"{words}, with its --cron and settings"
    )


def entrypoint_of(flow: str) -> str:
    """Module and function of a flow, as deployments name it."""
    function = load_flow(flow).fn
    return f"{function.__module__}.{function.__name__}"
