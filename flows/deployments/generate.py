"""The run `generate` as a flow: runs/generate.py with a task for each step, a table and a contact sheet."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from maskmill.flows.config import RunConfig
from maskmill.flows.deployments.tasks import as_tasks, config_of
from maskmill.flows.report.report import (
    RunReport,
    pictures_wanted,
    sheet_artifact,
    table_artifact,
    watcher,
)
from maskmill.flows.runs import generate as run
from maskmill.flows.services.prefect.processes import note_process
from maskmill.storage.errors import StorageError


@flow(
    name="generate",
    description="Annotates images with masks and publishes them as a dataset's next generation.",
)
def generate(
    dataset: str,
    inputs: list[str],
    config: RunConfig | str = "nano",
    limit: int | None = None,
    export_to: str | None = None,
) -> RunReport:
    """Annotates what is new in `inputs` and publishes the dataset's next generation.

    Args:
        dataset: its root, a local path or s3://bucket/prefix; made if it isn't there.
        inputs: folders, globs, .txt manifests, tars, s3:// prefixes.
        config: a whole run, or a recipe's name.
        limit: the most images the dataset should hold; None is all.
        export_to: where to export the generation to, by [export]; None exports nothing.

    Returns:
        What the dataset now holds and what this run added.

    Raises:
        ConfigError, InputError, StorageError, ClusterError, RunStopped: with the cause and the cure.
    """
    note_process()
    with as_tasks():
        report = run.generate(dataset, inputs, config_of(config), limit=limit, export_to=export_to)
    show(report)
    return report


@task(name="report", cache_policy=NO_CACHE)
def show(report: RunReport) -> None:
    """Leaves the result as artifacts of the run: a table, and for a server with pages a contact sheet."""
    table_artifact(report)
    if report.generation is not None and report.annotated and pictures_wanted():
        try:
            sheet = run.contact_sheet(report.dataset, report.generation)
        except StorageError as exc:  # a picture that cannot be drawn is no reason to fail a published run
            watcher().note(f"no contact sheet: {exc}")
        else:
            sheet_artifact(sheet, generation=report.generation)
