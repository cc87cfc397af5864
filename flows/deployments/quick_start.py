"""Starts a run so that the first image is annotated soon: everything slow side by side.

In seconds of one core: a Prefect server takes 4 to start, its client 1 to import, Ray 2 (lean.py), a worker
3.5. Here the server starts beside Ray, and a worker loads its models while the client is imported. (The
client is not imported beside Ray, which gives its own agents only 15 s to start.) Inputs, settings and
weights are checked before any of it, and a run with nothing to do starts none of it. The run's own server
shows no pages, so no contact sheet is drawn for it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import RunReport, watcher, without_pictures
from maskmill.flows.runs import generate as generating
from maskmill.flows.runs import relabel as relabeling
from maskmill.flows.runs.relabel import NotHere, RelabelReport
from maskmill.flows.runs.steps import planning
from maskmill.flows.runs.steps.relabel_plan import RelabelCaps, RelabelPlan
from maskmill.flows.services import state as up_state
from maskmill.flows.services.prefect import server as prefect_server
from maskmill.flows.services.ray import cluster
from maskmill.workers.run.spec import RunSpec


def run_generate(
    dataset: str,
    inputs: Sequence[str],
    config: RunConfig,
    *,
    limit: int | None = None,
    export_to: str | None = None,
) -> RunReport:
    """The flow `generate` with a quick start; see there for arguments and result.

    Where there is nothing to annotate and nothing to export, the run is taken plainly: neither Prefect nor
    Ray starts.

    Raises:
        ConfigError, InputError, StorageError, ClusterError, RunStopped: as the flow does.
        PrefectServerError: the Prefect server that is named doesn't answer, or ours doesn't start.
    """
    config = _joining_services(config)
    spec = planning.describe_run(dataset, config)
    planning.check_inputs(dataset, inputs)
    complete = generating.is_complete_with(spec, inputs, config, limit)
    if complete and export_to is None:
        return generating.generate(dataset, inputs, config, limit=limit, planned=True)

    prefect_server.quiet_environment()
    with _own_server() as server, nullcontext() if complete else _workers(spec, config), _using(server):
        from maskmill.flows.deployments.generate import generate

        return generate(dataset, list(inputs), config, limit=limit, export_to=export_to)


def run_relabel(
    dataset: str, inputs: Sequence[str] | None, config: RunConfig, caps: RelabelCaps, *, wait_s: float = 0.0
) -> RelabelReport:
    """The flow `relabel` with a quick start; see there for arguments and result.

    Where there is nothing to do, or only a selection from stored candidates, the run is taken plainly:
    neither Prefect nor Ray starts, unless PREFECT_API_URL names a server to tell of it.

    Raises:
        WriterBusy: another writer works on the dataset.
        ConfigError, InputError, StorageError, ClusterError, RunStopped: as the flow does.
        PrefectServerError: the Prefect server that is named doesn't answer, or ours doesn't start.
    """
    config = _joining_services(config)
    try:
        return relabeling.relabel(
            dataset, config, inputs=inputs, caps=caps, wait_s=wait_s, begin=_needs_neither
        )
    except NotHere as left:
        spec, needs_model = left.spec, left.plan.needs_model

    prefect_server.quiet_environment()
    workers = _workers(spec, config) if needs_model else nullcontext()
    with _own_server() as server, workers, _using(server):
        from maskmill.flows.deployments.relabel import relabel

        report = relabel(
            dataset,
            config,
            inputs=list(inputs) if inputs is not None else None,
            wait_s=wait_s,
            **dataclasses.asdict(caps),
        )
        assert isinstance(report, RelabelReport)  # only a scheduled run is skipped
        return report


def _needs_neither(plan: RelabelPlan) -> bool:
    """Whether a relabel can do without Ray, and without telling Prefect of it."""
    watcher().note(f"{len(plan.chosen)} of {plan.stale_shards} stale shards are to be done")
    return not plan.needs_model and (not plan.chosen or not os.environ.get("PREFECT_API_URL"))


def _joining_services(config: RunConfig) -> RunConfig:
    """Where `maskmill up` runs here, its Prefect server and Ray are used; what the user named comes first."""
    up_state.use_server()
    run = dataclasses.replace(config.run, ray_address=up_state.ray_address(config.run.ray_address))
    return config.model_copy(update={"run": run})


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
    with without_pictures(), temporary_settings({**ours, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
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
