"""The flow as a Prefect deployment: the same `generate`, started by schedules, Prefect's pages or its API.

Two ways: `serve` keeps this process to run it, `register` hands it to a process work pool whose workers have
maskmill installed. Both need a Prefect server that stays; the one that a command starts for itself does not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.config import RunConfig


class DeployError(ValueError):
    """The deployment cannot be made: says why and the cure."""


def parameters(dataset: str, inputs: Sequence[str], config: RunConfig) -> dict[str, Any]:
    """The deployment's parameters as JSON; local paths made absolute, since its runs start elsewhere."""
    return {
        "dataset": _absolute(dataset),
        "inputs": [_absolute(text) for text in inputs],
        "config": config.model_dump(mode="json"),
    }


def serve(name: str, parameters: dict[str, Any], cron: str | None) -> None:
    """Runs the deployment's runs from this process until it is interrupted.

    Raises:
        DeployError: no Prefect server is named.
    """
    _need_server()
    from flows.generate import generate

    generate.serve(name=name, parameters=parameters, cron=cron, print_starting_message=False)


def register(name: str, parameters: dict[str, Any], cron: str | None, pool: str) -> None:
    """Registers the deployment with a process work pool, which is made if it isn't there.

    Raises:
        DeployError: no Prefect server is named.
    """
    _need_server()
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    from flows.generate import generate

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    source = generate.from_source(str(Path(__file__).parent.parent), "flows/generate.py:generate")
    assert isinstance(source, Flow)  # a coroutine only inside an event loop
    source.deploy(name=name, work_pool_name=pool, parameters=parameters, cron=cron, print_next_steps=False)


def _need_server() -> None:
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise DeployError(
            "a deployment needs a Prefect server that stays: run `prefect server start`, then "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`, or name yours"
        )


def _absolute(text: str) -> str:
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - globs too
