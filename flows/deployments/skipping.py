"""A scheduled run that finds its dataset taken is skipped: nothing failed, the next one does its work.

It ends as `Completed` under the name "Skipped" and says who held the dataset, and how many of its deployment
were skipped in a row; so an automation on `Failed` and `Crashed` wakes people for real failures only. A run
that a person started, or agreed to, is not skipped: it waits as long as it was told, and then says why not.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Completed

from maskmill.flows.report.report import lines_artifact
from maskmill.storage.drivers.one_writer import WriterBusy

WAIT_S = 600.0
"""The most a scheduled run waits: a short task of another's costs no night."""
NAME = "Skipped"
SCHEDULED = "auto-scheduled"
"""Prefect's own tag of runs that a schedule made; a run that follows a crashed one keeps it."""


def patience_s(wait_s: float) -> float:
    """How long this run waits for the dataset, seconds."""
    return min(wait_s, WAIT_S) if _is_scheduled() else wait_s


def skipped(busy: WriterBusy) -> State[Any]:
    """The end of a scheduled run whose dataset was taken.

    Raises:
        WriterBusy: `busy` itself, where no schedule started the run.
    """
    if not _is_scheduled():
        raise busy
    times = 1 + _skipped_before()
    lines_artifact(
        [("skipped", "this run"), ("in a row", times), ("because", busy.holder)],
        key="maskmill-skipped",
        description="the dataset was taken; the next scheduled run does the work",
    )
    return Completed(name=NAME, message=f"skipped ({times} in a row): {busy.holder}")


def _is_scheduled() -> bool:
    """Whether a schedule made this run, and no person has resumed it."""
    return SCHEDULED in runtime.flow_run.tags and runtime.flow_run.run_count <= 1


def _skipped_before() -> int:
    """How many of the deployment's last runs before this one were skipped, without another end between."""
    ended = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=ended,
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[UUID(runtime.deployment.id)])),
            sort=FlowRunSort.END_TIME_DESC,
            limit=200,
        )
    names = [run.state_name for run in runs]
    return next((place for place, name in enumerate(names) if name != NAME), len(names))
