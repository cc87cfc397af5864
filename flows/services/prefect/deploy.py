"""Flows as Prefect deployments: started by schedules, Prefect's pages or its API.

What is to be registered, checked; register.py does it. A deployment's name carries its dataset, so that two
datasets never share one. One writer per dataset is held by the dataset (storage/drivers/one_writer.py) across
deployments, machines and plain commands: a run that a person started waits `WAIT_S` for another, then is
refused with the reason; one that a schedule started is skipped (skipping.py).

Work pools: "process" (a worker of Prefect's runs each as a process; maskmill is installed there) or
"kubernetes" (each is a job of an image that holds maskmill; see infra/).

It needs a Prefect server that stays: `maskmill up`, or one of yours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.services import state as up_state
from maskmill.flows.services.prefect.pools import POOL_NAME
from maskmill.flows.services.prefect.server import check_answers
from maskmill.storage.stores.open import open_store

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule

FLOWS = ("generate", "relabel", "evaluate", "retrain", "loop")
POOL_TYPES = ("process", "kubernetes")
WAIT_S = 6 * 3600.0
NO_NAME = "default"
"""What deployments without a --name were called before names carried the dataset."""
_NOT_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_CRON = re.compile(r"\S+(\s+\S+){4}")


class DeployError(ValueError):
    """The deployment cannot be made: says why and the cure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deployment:
    """What to register.

    Args:
        flow: one of `FLOWS`.
        name: what the user calls it, beside others of this flow and dataset; "" is the only one.
        parameters: JSON; see `parameters`. They name the dataset.
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
        for option, text in (("--name", self.name or "-"), ("--pool", self.pool)):
            if not POOL_NAME.fullmatch(text):
                raise DeployError(f"{option} {text!r}: use letters, digits, spaces and . _ -")
        _check_timezone(self.timezone)
        try:
            self.schedules()
        except ValueError as exc:
            raise DeployError(
                f'cron {self.cron!r} is no schedule: use five fields, such as "0 3 * * *"'
            ) from exc

    def schedules(self) -> list[CronSchedule]:
        """When to run, as Prefect takes it; nothing without `cron`."""
        up_state.use_server()  # before Prefect comes in: it reads its settings then
        from prefect.client.schemas.schedules import CronSchedule

        return [CronSchedule(cron=self.cron, timezone=self.timezone)] if self.cron else []

    @property
    def full_name(self) -> str:
        """The deployment's name in Prefect, without its flow's."""
        return dataset_name(str(self.parameters["dataset"])) + (f"-{self.name}" if self.name else "")


def dataset_name(dataset: str) -> str:
    """A dataset as part of a deployment's name: its last folder, and digits that tell it from its namesakes.

    Args:
        dataset: its root, as `absolute` gives it.
    """
    last = _NOT_NAME.sub("-", dataset.rstrip("/").rpartition("/")[2]).strip("-") or "dataset"
    return f"{last}-{hashlib.sha256(dataset.encode()).hexdigest()[:6]}"


def parameters(
    flow: str, dataset: str, inputs: Sequence[str], config: RunConfig | None, *, sign_off: bool = False
) -> dict[str, Any]:
    """The deployment's parameters as JSON; local paths made absolute, since its runs start elsewhere.

    Raises:
        DeployError: `generate` without inputs or settings.
        InputError: no dataset can be there.
    """
    open_store(dataset)
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
    if "://" in text:
        return text.rstrip("/")
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - globs too


def _check_timezone(name: str) -> None:
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as exc:
        raise DeployError(f"time zone {name!r} is unknown: use IANA's names, such as Europe/Berlin") from exc
