"""The run `generate`: images in, a generation of masks out. Read it as the method section.

    from maskmill.flows.runs.generate import generate
    report = generate("my-dataset", ["photos/"], load_config("nano"))

Storage knows what is done, so a run that died is continued by running it again. Beside others: it holds no
lock, but a heartbeat tells of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import RunReport, watcher
from maskmill.flows.runs.export import export_generation
from maskmill.flows.runs.steps.annotating import Annotated, annotate_shards
from maskmill.flows.runs.steps.holding import driving
from maskmill.flows.runs.steps.planning import describe_run, is_complete, plan_images
from maskmill.flows.runs.steps.planning_ahead import PlanningAhead, feed_of, planning_ahead
from maskmill.flows.runs.steps.publishing import Published, publish_and_verify
from maskmill.flows.runs.steps.taking import step
from maskmill.pipeline.settings import BoxSettings
from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.stores.open import open_store

if TYPE_CHECKING:
    from maskmill.workers.run.spec import RunSpec


def generate(
    dataset: str,
    inputs: Sequence[str],
    config: RunConfig,
    *,
    limit: int | None = None,
    export_to: str | None = None,
    planned: bool = False,
) -> RunReport:
    """Annotates what is new in `inputs` and publishes the dataset's next generation.

    Args:
        dataset: its root, a local path or s3://bucket/prefix; made if it isn't there.
        inputs: folders, globs, .txt manifests, tars, s3:// prefixes.
        config: of the whole run.
        limit: the most images the dataset should hold; None is all.
        export_to: where to export the generation to, by [export]; None exports nothing.
        planned: the inputs were looked through just now (`is_complete_with`).

    Returns:
        What the dataset now holds and what this run added.

    Raises:
        ConfigError, InputError, StorageError, ClusterError, RunStopped: with the cause and the cure.
    """
    began = time.monotonic()
    spec = describe_run(dataset, config)
    with (
        driving(dataset),
        nullcontext() if planned else planning_ahead(dataset, inputs, config, limit) as ahead,
    ):
        if ahead is not None:
            plan(spec, ahead)
        annotated = annotate(spec, config, ahead)
        published = verify_and_publish(spec, config)
        exported = export(dataset, published, config, export_to) if export_to else None
    return make_report(dataset, annotated, published, exported, seconds=time.monotonic() - began)


@step("plan")
def plan(spec: RunSpec, ahead: PlanningAhead) -> None:
    """Which source files become which keys of which shards; written once, extended by new files.

    Where that takes long it goes on beside the next step, which begins with what is planned.

    Raises:
        InputError: an input is missing, unreadable or holds no image.
    """
    watcher().step("planning: listing and hashing the inputs", "file")
    ahead.wait(spec)


@step("annotate", may_pass=True)
def annotate(spec: RunSpec, config: RunConfig, ahead: PlanningAhead | None) -> Annotated:
    """Every planned shard that is not yet committed goes to Ray's workers: ingest and masks in one pass.

    Raises:
        InputError: what is planned is annotated, and then planning failed.
        ClusterError, RunStopped, LeaseLost: as `annotate_shards`.
    """
    if ahead is not None and spec.settings.of(BoxSettings).file is not None:
        ahead.wait()  # its boxes are held against all images before work starts
    feed = feed_of(spec, ahead)
    annotated = Annotated()
    if not feed.ended:
        so_far = "" if feed.complete else ", the first of those that are being planned"
        watcher().step(f"annotating {sum(feed.shards.values())} images in {len(feed.shards)} shards{so_far}")
        annotated = annotate_shards(spec, config, feed)
    if ahead is not None:
        ahead.tell()
    return annotated


@step("verify and publish")
def verify_and_publish(spec: RunSpec, config: RunConfig) -> Published:
    """Publishes what is committed as the next generation, unless nothing changed, and checks the sums.

    Raises:
        StorageError: records contradict each other, or cannot be read.
    """
    watcher().step("verifying and publishing")
    return publish_and_verify(spec, config)


@step("export")
def export(dataset: str, published: Published, config: RunConfig, export_to: str) -> str:
    """Writes the generation out as self-contained files; returns where they lie.

    Raises:
        ExportError: the destination holds something else.
    """
    watcher().step(f"exporting to {export_to}", "image")
    return export_generation(dataset, published.generation, config.export, export_to).destination


def is_complete_with(spec: RunSpec, inputs: Sequence[str], config: RunConfig, limit: int | None) -> bool:
    """Whether the dataset already holds all that is in the inputs, annotated by this run's settings.

    New inputs are planned only where everything planned before is done: a first plan may take long, and is
    the run's to make.

    Raises:
        InputError: an input is missing, unreadable or holds no image.
    """
    if not is_complete(spec):
        return False
    watcher().step("looking for new images", "file")
    plan_images(spec.root, inputs, config, limit)
    return is_complete(spec)


def contact_sheet(dataset: str, number: int) -> bytes:
    """A PNG of a sample of a generation's images with their masks.

    Raises:
        StorageError: a picture cannot be read.
    """
    from maskmill.workers.pictures.render import contact_sheet

    store = open_store(dataset)
    return contact_sheet(store, load_generation(store, number))


def make_report(
    dataset: str, annotated: Annotated, published: Published, exported: str | None, *, seconds: float
) -> RunReport:
    """Joins what the steps found."""
    check = published.check
    return RunReport(
        dataset=dataset,
        generation=published.generation,
        published=published.is_new,
        images=check.images,
        annotated=check.annotated,
        rejected=check.rejected,
        missing=check.missing,
        duplicated=check.duplicated,
        damaged=check.damaged,
        masks=published.masks,
        new_images=annotated.new_images,
        rejects=published.rejects,
        failed_shards=annotated.failed_shards,
        problems=check.problems,
        seconds=round(seconds, 3),
        images_per_s=round(annotated.new_images / annotated.seconds, 3) if annotated.seconds else 0.0,
        export=exported,
        remarks=annotated.remarks,
    )
