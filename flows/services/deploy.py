"""Flows as Prefect deployments: started by schedules, Prefect's pages or its API.

A deployment's parameter form comes from the flow's signature and the settings' own schema. Each has a
schedule (cron, time zone), a limit of one run at a time that queues the next, tags, and what its runs need in
their environment. One writer per dataset is held by the dataset (storage/drivers/one_writer.py), across
deployments, machines and plain commands: a run waits `WAIT_S` for another, then is refused with the reason.

Work pools: "process" (a worker of Prefect's runs each as a process; maskmill is installed there) or
"kubernetes" (each is a job of an image that holds maskmill; see infra/).

It needs a Prefect server that stays: `maskmill up`, or one of yours.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.services import services
from maskmill.flows.services import state as up_state
from maskmill.flows.services.prefect_server import check_answers

if TYPE_CHECKING:
    from prefect import Flow

FLOWS = ("generate", "relabel", "evaluate", "retrain", "loop")
POOL_TYPES = ("process", "kubernetes")
WAIT_S = 6 * 3600.0
_CRON = re.compile(r"\S+(\s+\S+){4}")


class DeployError(ValueError):
    """The deployment cannot be made: says why and the cure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deployment:
    """What to register.

    Args:
        flow: one of `FLOWS`.
        name: of the deployment.
        parameters: JSON; see `parameters`.
        pool: the work pool. pool_type: one of `POOL_TYPES`.
        cron: when to run, five fields; None is never by itself. timezone: of it, by IANA's name.
        image: for Kubernetes: holds maskmill.
        sign_off: relabel only: a person must agree before a generation is published.
        tags: for people, and Prefect's filters.
    """

    flow: str
    name: str
    parameters: Mapping[str, Any]
    pool: str
    pool_type: str = "process"
    cron: str | None = None
    timezone: str = "UTC"
    image: str | None = None
    sign_off: bool = False
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.flow not in FLOWS:
            raise DeployError(f"flow {self.flow!r} is unknown: use one of {', '.join(FLOWS)}")
        if self.pool_type not in POOL_TYPES:
            raise DeployError(f"pool type {self.pool_type!r} is unknown: use one of {', '.join(POOL_TYPES)}")
        if self.pool_type == "kubernetes" and not self.image:
            raise DeployError("a Kubernetes pool runs an image: name it with --image")
        if self.cron is not None and not _CRON.fullmatch(self.cron.strip()):
            raise DeployError(f'cron {self.cron!r} is no schedule: use five fields, such as "0 3 * * *"')
        if self.sign_off and self.flow != "relabel":
            raise DeployError("--sign-off is for relabel: it asks before a generation is published")
        _check_timezone(self.timezone)


def parameters(
    flow: str, dataset: str, inputs: Sequence[str], config: RunConfig | None, *, sign_off: bool = False
) -> dict[str, Any]:
    """The deployment's parameters as JSON; local paths made absolute, since its runs start elsewhere.

    Raises:
        DeployError: `generate` without inputs or settings.
    """
    found: dict[str, Any] = {"dataset": absolute(dataset)}
    if config is not None:
        found["config"] = config.model_dump(mode="json")
    if flow == "generate":
        if not inputs:
            raise DeployError("generate needs images: name them with --input")
        found["inputs"] = [absolute(text) for text in inputs]
    if flow == "relabel":
        found |= {"wait_s": WAIT_S, "sign_off": sign_off}
        found |= {"inputs": [absolute(text) for text in inputs]} if inputs else {}
    if flow == "loop" and inputs:
        found["inputs"] = [absolute(text) for text in inputs]
    if flow in ("retrain", "loop"):
        found["wait_s"] = WAIT_S
    return found


def register(deployment: Deployment) -> str:
    """Registers a deployment with its work pool, which is made if it isn't there; the same again updates it.

    Returns:
        "flow/name", as Prefect's commands take it.

    Raises:
        DeployError: no Prefect server is named, or it refuses.
    """
    need_server()
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import RunnerDeployment
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.types.entrypoint import EntrypointType

    from maskmill.flows.services.lost_runs import make_pool

    queue = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    schedules = [CronSchedule(cron=deployment.cron, timezone=deployment.timezone)] if deployment.cron else []
    try:
        make_pool(deployment.pool, deployment.pool_type)
        made = load_flow(deployment.flow).to_deployment(
            name=deployment.name,
            parameters=dict(deployment.parameters),
            schedules=schedules,
            concurrency_limit=queue,
            tags=["maskmill", deployment.flow, *deployment.tags],
            work_pool_name=deployment.pool,
            job_variables=_job_variables(deployment),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(made, RunnerDeployment)  # a coroutine only inside an event loop
        made.apply()
    except PrefectHTTPStatusError as exc:
        raise DeployError(f"Prefect's server refuses: {exc}") from exc
    return f"{deployment.flow}/{deployment.name}"


def load_flow(name: str) -> Flow[..., Any]:
    """A flow by its deployment's name."""
    from maskmill.flows.runs.evaluate_flow import evaluate
    from maskmill.flows.runs.generate import generate
    from maskmill.flows.runs.relabel import relabel
    from maskmill.flows.runs.train_flows import loop, retrain

    known: tuple[Flow[..., Any], ...] = (generate, relabel, evaluate, retrain, loop)
    return next(flow for flow in known if flow.name == name)


def _job_variables(deployment: Deployment) -> dict[str, Any]:
    """What the pool's worker gives each run."""
    environment = {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(services.HEARTBEAT_S),
        "PREFECT_CLIENT_MAX_RETRIES": "10",
        "DO_NOT_TRACK": "1",
    }
    if deployment.pool_type == "kubernetes":
        return {"env": environment, "image": deployment.image, "finished_job_ttl": 3600}
    return {"env": environment}


def need_server() -> None:
    """Finds the Prefect server that deployments are registered with.

    Raises:
        DeployError: none is named.
        PrefectServerError: it doesn't answer.
    """
    up_state.use_server()
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise DeployError(
            "a deployment needs a Prefect server that stays: run `maskmill up` (or `prefect server start`, "
            "then `export PREFECT_API_URL=http://127.0.0.1:4200/api`), or name yours"
        )
    check_answers(str(PREFECT_API_URL.value()))


def absolute(text: str) -> str:
    """A local path that means the same elsewhere on this machine; addresses as they are."""
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - globs too


def _check_timezone(name: str) -> None:
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as exc:
        raise DeployError(f"time zone {name!r} is unknown: use IANA's names, such as Europe/Berlin") from exc
