"""The flow: images in, a generation of masks out. Read it as the method section.

    from maskmill.flows.runs.generate import generate
    report = generate("my-dataset", ["photos/"], "nano")

The same function is the command `maskmill generate` and, through deploy.py, a Prefect deployment. Each step
is one coarse task, never one per shard: Prefect's database stalls under hundreds. Nothing is cached by
Prefect: storage knows what is done, so a run that died is continued by running it again.
"""

from __future__ import annotations

import time

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.report.report import (
    ProgressArtifact,
    RunReport,
    Tally,
    sheet_artifact,
    table_artifact,
    watcher,
)
from maskmill.flows.runs import publishing, steps
from maskmill.flows.runs.publishing import Published
from maskmill.flows.runs.steps import Annotated
from maskmill.flows.services.lost_runs import note_process
from maskmill.flows.services.retries import patient
from maskmill.storage.errors import StorageError
from maskmill.workers.run.spec import RunSpec


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
    began = time.monotonic()
    config = load_config(config) if isinstance(config, str) else config
    note_process()
    spec = steps.describe_run(dataset, config)
    with steps.driving(dataset):
        plan(dataset, inputs, config, limit)
        annotated = patient(annotate)(spec, config)
        published = verify_and_publish(spec, config)
        exported = export(dataset, published, config, export_to) if export_to else None
    report = steps.make_report(dataset, annotated, published, exported, seconds=time.monotonic() - began)
    show(report)
    return report


@task(name="plan", cache_policy=NO_CACHE)
def plan(dataset: str, inputs: list[str], config: RunConfig, limit: int | None) -> None:
    """Which source files become which keys of which shards; written once, extended by new files."""
    watcher().step("planning: listing and hashing the inputs")
    summary = steps.plan_images(dataset, inputs, config, limit)
    get_run_logger().info("%s", summary)


@task(name="annotate", cache_policy=NO_CACHE)
def annotate(spec: RunSpec, config: RunConfig) -> Annotated:
    """Every planned shard that is not yet committed goes to Ray's workers: ingest and masks in one pass."""
    shards = steps.pending_shards(spec)
    if not shards:
        return Annotated()
    watcher().step(f"annotating {sum(shards.values())} images in {len(shards)} shards")
    artifact = ProgressArtifact("maskmill-progress")
    last = Tally(images_total=sum(shards.values()), shards_total=len(shards))

    def on_tally(tally: Tally) -> None:
        nonlocal last
        last = tally
        watcher().tally(tally)
        artifact.update(tally)

    annotated = steps.annotate_shards(spec, config, shards, on_tally)
    artifact.update(last, last=True)
    return annotated


@task(name="verify and publish", cache_policy=NO_CACHE)
def verify_and_publish(spec: RunSpec, config: RunConfig) -> Published:
    """Publishes what is committed as the next generation, unless nothing changed, and checks the sums."""
    watcher().step("verifying and publishing")
    return publishing.publish_and_verify(spec, config)


@task(name="export", cache_policy=NO_CACHE)
def export(dataset: str, published: Published, config: RunConfig, export_to: str) -> str:
    """Writes the generation out as self-contained files."""
    watcher().step(f"exporting to {export_to}")
    return steps.export_generation(dataset, published.generation, config, export_to).destination


@task(name="report", cache_policy=NO_CACHE)
def show(report: RunReport) -> None:
    """Leaves the result as artifacts of the run: a table, and a contact sheet of the generation."""
    table_artifact(report)
    if report.generation is not None and report.annotated:
        try:
            sheet = steps.contact_sheet(report.dataset, report.generation)
        except StorageError as exc:  # a picture that cannot be drawn is no reason to fail a published run
            watcher().note(f"no contact sheet: {exc}")
        else:
            sheet_artifact(sheet, generation=report.generation)
