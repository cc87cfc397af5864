"""Starts a run so that the first image is annotated soon: everything slow side by side.

A Prefect server takes 7 s to start, its client 2 s to import, Ray 9 s, a worker's imports 9 s. In line that
is 27 s of waiting; here the server starts beside Ray, and a worker loads its models while the client is
imported. (The client is not imported beside Ray, which gives its own agents only 15 s to start.) Inputs,
settings and weights are checked before any of it, and a run with nothing to do starts none of it.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import RunReport, watcher
from maskmill.flows.runs import publishing, relabel_steps, steps
from maskmill.flows.runs.relabel_plan import RelabelCaps, make_relabel_plan
from maskmill.flows.runs.relabel_steps import RelabelReport
from maskmill.flows.services import cluster, prefect_server
from maskmill.flows.services import state as up_state
from maskmill.workers.run.spec import RunSpec


def run_generate(
    dataset: str,
    inputs: Sequence[str],
    config: RunConfig,
    *,
    limit: int | None = None,
    export_to: str | None = None,
) -> RunReport:
    """The flow `generate` with a quick start; see there for arguments, result and errors."""
    began = time.monotonic()
    config = _joining_services(config)
    spec = steps.describe_run(dataset, config)
    steps.check_inputs(dataset, inputs)
    complete = _is_complete_with(spec, inputs, config, limit)
    if complete and export_to is None:
        published = publishing.publish_and_verify(spec, config)
        return steps.make_report(
            dataset, steps.Annotated(), published, None, seconds=time.monotonic() - began
        )
    prefect_server.quiet_environment()
    with _own_server() as server, nullcontext() if complete else _workers(spec, config), _using(server):
        from maskmill.flows.runs.generate import generate

        return generate(dataset, list(inputs), config, limit=limit, export_to=export_to)


def run_relabel(
    dataset: str, inputs: Sequence[str] | None, config: RunConfig, caps: RelabelCaps, *, wait_s: float = 0.0
) -> RelabelReport:
    """The flow `relabel` with a quick start; see there for arguments, result and errors.

    Where there is nothing to do, or only a selection from stored candidates, neither Prefect nor Ray starts,
    unless PREFECT_API_URL names a server to tell of it.
    """
    began = time.monotonic()
    config = _joining_services(config)
    with steps.writing(dataset, "relabel", wait_s=wait_s):
        watcher().step("looking for new images")
        relabel_steps.plan_new_images(dataset, list(inputs) if inputs is not None else None, config)
        spec = steps.describe_run(dataset, config)
        plan = make_relabel_plan(spec, config, caps)
        watcher().note(f"{len(plan.chosen)} of {plan.stale_shards} stale shards are to be done")
        if not plan.needs_model and (not plan.chosen or not os.environ.get("PREFECT_API_URL")):
            annotated = relabel_steps.recompute(spec, config, plan, watcher().tally)
            published = publishing.publish_and_verify(spec, config, made_by="relabel", partial=True)
            return relabel_steps.make_report(plan, annotated, published, seconds=time.monotonic() - began)
    prefect_server.quiet_environment()
    workers = _workers(spec, config) if plan.needs_model else nullcontext()
    with _own_server() as server, workers, _using(server):
        from maskmill.flows.runs.relabel import relabel

        report = relabel(
            dataset,
            config,
            inputs=list(inputs) if inputs is not None else None,
            wait_s=wait_s,
            **dataclasses.asdict(caps),
        )
        assert isinstance(report, RelabelReport)  # only a scheduled run is skipped
        return report


def _joining_services(config: RunConfig) -> RunConfig:
    """Where `maskmill up` runs here, its Prefect server and Ray are used; what the user named comes first."""
    up_state.use_server()
    run = dataclasses.replace(config.run, ray_address=up_state.ray_address(config.run.ray_address))
    return config.model_copy(update={"run": run})


def _is_complete_with(spec: RunSpec, inputs: Sequence[str], config: RunConfig, limit: int | None) -> bool:
    """Whether the dataset already holds all that is in the inputs, annotated by this run's settings.

    New inputs are planned only where everything planned before is done: a first plan may take long, and is
    the flow's to make.
    """
    if not steps.is_complete(spec):
        return False
    watcher().step("looking for new images")
    steps.plan_images(spec.root, inputs, config, limit)
    return steps.is_complete(spec)


@contextmanager
def _workers(spec: RunSpec, config: RunConfig) -> Iterator[None]:
    """Ray inside the block, and a first worker that loads its models."""
    watcher().step("starting Ray, Prefect and the workers")
    with cluster.connected(config.run.ray_address):
        crew = cluster.plan_crew(config)
        cluster.warm_up(spec, crew)
        yield


@contextmanager
def _own_server() -> Iterator[prefect_server.PrefectServer | None]:
    """A Prefect server that ends with the block; none if the environment names the user's."""
    if os.environ.get("PREFECT_API_URL"):
        yield None
        return
    server = prefect_server.start_server()
    try:
        yield server
    finally:
        prefect_server.stop_server(server)


@contextmanager
def _using(server: prefect_server.PrefectServer | None) -> Iterator[None]:
    """Prefect's client talks to `server`, or to the one of the user's profile where that names one."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    url = PREFECT_API_URL.value()
    if server is None or url:
        prefect_server.check_answers(str(url))
        yield
        return
    prefect_server.wait_ready(server)
    ours = {PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: server.secret}
    with temporary_settings({**ours, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        try:
            yield
        finally:
            _send_what_waits()


def _send_what_waits() -> None:
    """Sends the logs and events that Prefect's threads still hold, while the server is there to take them."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (APILogWorker, EventsWorker):
        service.drain_all(timeout=5)
