"""Runs whose process is gone must not stay "running": they are started again, or marked as crashed.

Prefect marks a run as crashed only while its worker lives. When worker and run are killed together, or a run
was a plain command, nobody is left to tell. Two nets catch these:

* `sweep`: a run notes the process it runs in (processes.py); where that is one of this machine's and gone,
  the run is marked as crashed, and a deployment's is followed by another of the same parameters (storage
  knows what it had done), at most `MAX_STARTS` in all. So are runs that Prefect's worker has just marked as
  crashed. `maskmill up` sweeps every few seconds. (The same run is not scheduled again: Prefect's worker may
  report a process's end twice, seconds apart, and the second report would end the new process's lease.)
* an automation of the server: a run from anywhere that sent a heartbeat once and then none for `SILENCE_S`
  is marked as crashed.

`python -m maskmill.flows.services.prefect.lost_runs setup POOL` makes the pool and the automation, and mends
what an earlier maskmill registered (entrypoints.py); it is a process of its own because Prefect's client
takes seconds to import.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import urllib.error
from collections.abc import Iterator
from typing import Any

from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.prefect.pools import ensure_pool
from maskmill.flows.services.prefect.processes import is_gone

MAX_STARTS = 3
SILENCE_S = 120
AUTOMATION = "maskmill: runs without a heartbeat"
STARTS = "maskmill-starts:"
"""Tag of a run that follows others: how many there were with it."""
FRESH_S = 300
"""A run that crashed longer ago than this is history, and is left alone."""
_STATES = ["PENDING", "RUNNING", "CANCELLING", "CRASHED"]


def sweep(api: PrefectApi) -> Iterator[str]:
    """Sets right every run of this machine whose process is gone; says what was done, a sentence each."""
    order = {"sort": "START_TIME_DESC", "limit": 200}
    question = {"flow_runs": {"state": {"type": {"any_": _STATES}}}, **order}
    try:
        runs = api.send("/flow_runs/filter", question)
    except (urllib.error.URLError, OSError, ValueError):
        return  # the server is starting again: the next sweep finds them
    for run in runs:
        if is_gone(run.get("infrastructure_pid")) and (run["state_type"] != "CRASHED" or _is_fresh(run)):
            yield _set_right(api, run)


def _starts(run: dict[str, Any]) -> int:
    """How many runs there have been for this piece of work, this one included."""
    told = [tag.removeprefix(STARTS) for tag in run.get("tags") or [] if tag.startswith(STARTS)]
    return int(told[0]) if told else 1


def _may_start_again(run: dict[str, Any]) -> bool:
    """Whether a worker would take the work up again, and has not done so too often."""
    known = run.get("deployment_id") is not None and run["state_type"] != "CANCELLING"
    return known and _starts(run) < MAX_STARTS


def _is_fresh(run: dict[str, Any]) -> bool:
    """Whether a crashed run crashed just now and may start again."""
    try:
        ended = datetime.datetime.fromisoformat(str(run.get("end_time")).replace("Z", "+00:00"))
    except ValueError:
        return False
    age = datetime.datetime.now(datetime.UTC) - ended
    return age.total_seconds() < FRESH_S and _may_start_again(run)


def _set_right(api: PrefectApi, run: dict[str, Any]) -> str:
    message = f"its process {run['infrastructure_pid']} is gone"
    again = _may_start_again(run)
    try:
        if run["state_type"] != "CRASHED":
            state = {"type": "CRASHED", "name": "Crashed", "message": message}
            api.send(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
        if again:
            starts = _starts(run) + 1
            tags = [tag for tag in run.get("tags") or [] if not tag.startswith(STARTS)]
            follower = {
                "parameters": run["parameters"],
                "tags": [*tags, f"{STARTS}{starts}"],
                "idempotency_key": f"after-{run['id']}",  # a sweep cut short here makes no second one
                "state": {"type": "SCHEDULED", "message": f"after {run['name']}: {message}"},
            }
            api.send(f"/deployments/{run['deployment_id']}/create_flow_run", follower)
        api.send(f"/flow_runs/{run['id']}", {"infrastructure_pid": ""}, method="PATCH")
    except (urllib.error.URLError, OSError, ValueError) as exc:
        return f"run {run['name']} lost its process and could not be set right yet: {exc}"
    return f"run {run['name']}: {message}; marked as crashed{', and started again' if again else ''}"


def make_automation() -> None:
    """The server's own net, unless it is there."""
    from datetime import timedelta

    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    with contextlib.suppress(ValueError):  # there is none of this name
        if isinstance(Automation.read(name=AUTOMATION), Automation):
            return
    ends = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry")
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENCE_S),
    )
    message = f"no heartbeat for {SILENCE_S} s"
    action = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message, force=False)
    made = Automation(name=AUTOMATION, trigger=trigger, actions=[action]).create()
    assert isinstance(made, Automation)  # a coroutine only inside an event loop


def main() -> None:
    """`python -m maskmill.flows.services.prefect.lost_runs setup POOL`.

    Raises:
        SystemExit: other words on the command line; says which to use.
    """
    from maskmill.flows.services.prefect.entrypoints import mend_entrypoints
    from maskmill.flows.services.prefect.register import left_from_before

    if len(sys.argv) != 3 or sys.argv[1] != "setup":
        raise SystemExit("use: python -m maskmill.flows.services.prefect.lost_runs setup POOL")
    ensure_pool(sys.argv[2], ours=True)
    make_automation()
    api = PrefectApi(os.environ["PREFECT_API_URL"], os.environ.get("PREFECT_API_AUTH_STRING"))
    for line in (*sweep(api), *mend_entrypoints(sys.argv[2]), *left_from_before()):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
