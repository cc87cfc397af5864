"""Deployments as Prefect's server keeps them: registered, and told apart from what was there before.

A deployment's parameter form comes from the flow's signature and the settings' own schema. Each has a
schedule (cron, time zone) and tags. Flows that hold the dataset's writer's lock have no limit of Prefect's on
top: its queue would hide the wait that the lock tells of; the others run one at a time, the next one queued.

Before names carried the dataset, all were called "flow/default", and the next dataset's took the place of the
one before. One left from then, for the same dataset, is taken away once its successor is registered.
"""

from __future__ import annotations

import dataclasses
import json
import pkgutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from maskmill.flows.services.prefect.deploy import (
    NO_NAME,
    DeployError,
    Deployment,
    absolute,
    dataset_name,
    need_server,
)
from maskmill.flows.services.prefect.pools import RUN_ENVIRONMENT, ensure_pool
from maskmill.storage.secret_words import blank_secrets

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

FLOWS_IN = "maskmill.flows.deployments"
TAG = "maskmill"
QUEUED = ("generate", "evaluate")
"""Flows that hold no lock of the dataset: one run of a deployment at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registered:
    """A deployment that is there now.

    Attributes:
        name: "flow/name", as Prefect's commands take it.
        replaced: what it took the place of, a sentence each.
    """

    name: str
    replaced: tuple[str, ...] = ()


def register(deployment: Deployment) -> Registered:
    """Registers a deployment with its work pool, which is made if it isn't there; the same again updates it.

    Raises:
        DeployError: no Prefect server is named, or it refuses.
        PrefectServerError: it doesn't answer.
    """
    need_server()
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    name = f"{deployment.flow}/{deployment.full_name}"
    try:
        with get_client(sync_client=True) as client:
            before = _find(client, name)
            _apply(deployment)
            after = _find(client, name)
            assert after is not None  # it was registered just now
            replaced = [] if before is None else [_replaced(name, before, after)]
            replaced += _take_away_old(client, deployment, after)
    except PrefectHTTPStatusError as exc:
        if exc.response.status_code == 401:
            raise DeployError(
                "Prefect's server asks for a secret: set PREFECT_API_AUTH_STRING=user:password as it was "
                "started with (`maskmill up` keeps its own in ~/.maskmill/api-secret)"
            ) from exc
        raise DeployError(f"Prefect's server refuses: {exc}") from exc
    return Registered(name=name, replaced=tuple(replaced))


def load_flow(name: str) -> Flow[..., Any]:
    """A flow by its name: the function so called of the file so called in flows/deployments/."""
    found: Flow[..., Any] = pkgutil.resolve_name(f"{FLOWS_IN}.{name}:{name}")
    return found


def left_from_before() -> Iterator[str]:
    """Deployments whose names don't carry their dataset, a sentence each with the cure."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for found, flow in ours(client):
            dataset = found.parameters.get("dataset")
            if dataset and not found.name.startswith(dataset_name(absolute(str(dataset)))):
                name = f" --name {found.name}" if found.name != NO_NAME else ""
                yield (
                    f"deployment {flow}/{found.name} of {dataset} is from an earlier maskmill, without the "
                    "dataset in its name: it still runs. To rename it: "
                    f"maskmill deploy {dataset} --flow {flow}{name} with its --cron and settings"
                )


def _apply(deployment: Deployment) -> None:
    """Registers the deployment and what it needs."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    queue = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    closed = ensure_pool(deployment.pool, deployment.pool_type)
    made = load_flow(deployment.flow).to_deployment(
        name=deployment.full_name,
        parameters=dict(deployment.parameters),
        schedules=deployment.schedules(),
        concurrency_limit=queue if deployment.flow in QUEUED else None,
        tags=[TAG, deployment.flow, *deployment.tags],
        work_pool_name=deployment.pool,
        job_variables={} if closed else _job_variables(deployment),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(made, RunnerDeployment)  # a coroutine only inside an event loop
    made.apply()


def _job_variables(deployment: Deployment) -> dict[str, Any]:
    """What an open pool's worker gives each run."""
    environment = dict(RUN_ENVIRONMENT)
    if deployment.pool_type == "kubernetes":
        return {"env": environment, "image": deployment.image, "finished_job_ttl": 3600}
    return {"env": environment}


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def ours(client: SyncPrefectClient) -> Iterator[tuple[DeploymentResponse, str]]:
    """Every deployment that maskmill registered, with its flow's name."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    chosen, page = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])), 100
    for offset in range(0, 100 * page, page):
        found = client.read_deployments(deployment_filter=chosen, limit=page, offset=offset)
        for deployment in found:
            yield deployment, client.read_flow(deployment.flow_id).name
        if len(found) < page:
            return


def _take_away_old(
    client: SyncPrefectClient, deployment: Deployment, after: DeploymentResponse
) -> Iterator[str]:
    """Deletes the one of this flow, dataset and name from before names carried the dataset."""
    old = _find(client, f"{deployment.flow}/{deployment.name or NO_NAME}")
    if old is None or old.id == after.id or TAG not in (old.tags or []):
        return
    dataset = old.parameters.get("dataset")
    if dataset and absolute(str(dataset)) == deployment.parameters["dataset"]:
        client.delete_deployment(old.id)
        yield _replaced(f"{deployment.flow}/{old.name} (an earlier maskmill's)", old, after)


def _replaced(name: str, before: DeploymentResponse, after: DeploymentResponse) -> str:
    """What became of a deployment that was there."""
    old, new = _facts(before), _facts(after)
    changes = [
        f"{key} {old.get(key, 'unset')} -> {new.get(key, 'unset')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    return blank_secrets(f"replaces {name}: " + ("; ".join(changes) or "nothing changed"))


def _facts(found: DeploymentResponse) -> dict[str, str]:
    """What a person would miss, in words: schedules, parameters, pool, tags."""
    crons = [
        f"{getattr(each.schedule, 'cron', each.schedule)} {getattr(each.schedule, 'timezone', '') or ''}"
        + ("" if each.active else " (paused)")
        for each in found.schedules
    ]
    facts = {"schedule": ", ".join(sorted(crons)) or "none", "pool": str(found.work_pool_name)}
    facts["tags"] = ", ".join(sorted(found.tags or []))
    return {**facts, **_flat("", found.parameters)}


def _flat(place: str, value: Any) -> dict[str, str]:
    """Nested settings as dotted names."""
    if not isinstance(value, Mapping):
        return {place: json.dumps(value)}
    flat: dict[str, str] = {}
    for key, item in value.items():
        flat |= _flat(f"{place}.{key}" if place else str(key), item)
    return flat
