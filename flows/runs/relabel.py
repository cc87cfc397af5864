"""The flow `relabel`: recompute exactly what is stale, publish, and say what changed.

    new images are planned -> stale shards are found and chosen by the caps -> their columns are made -> a
    generation is published that keeps every other shard as it was -> the difference is reported

A person may sign off before anything is published: the run then waits in Prefect, costs nothing, and goes on
when it is resumed. Nothing is lost by stopping: what was made is committed and is found by the next run.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.input import RunInput

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import (
    MAX_SHEET_BYTES,
    ProgressArtifact,
    Tally,
    image_artifact,
    lines_artifact,
    watcher,
)
from maskmill.flows.runs import publishing, relabel_steps, steps
from maskmill.flows.runs.publishing import Published
from maskmill.flows.runs.relabel_plan import (
    RelabelCaps,
    RelabelPlan,
    make_relabel_plan,
    plan_lines,
    settings_of,
)
from maskmill.flows.runs.relabel_steps import RelabelReport
from maskmill.flows.runs.skipping import patience_s, skipped
from maskmill.flows.runs.steps import Annotated
from maskmill.flows.services.lost_runs import note_process
from maskmill.flows.services.retries import patient
from maskmill.storage.drivers.one_writer import WriterBusy
from maskmill.workers.run.spec import RunSpec

SIGN_OFF_TIMEOUT_S = 7 * 24 * 3600


class SignOff(RunInput):
    """What a person answers before a generation is published."""

    publish: bool = True


class NotSignedOff(RuntimeError):
    """A person answered that this is not to be published; what was made stays committed."""


@flow(
    name="relabel",
    description="Recomputes what is stale in a dataset (new images, changed settings, a promoted model) and "
    "publishes the next generation.",
)
def relabel(
    dataset: str,
    config: RunConfig | str | None = None,
    inputs: list[str] | None = None,
    max_shards: int | None = None,
    max_gpu_hours: float | None = None,
    order: str = "oldest",
    sign_off: bool = False,
    wait_s: float = 0.0,
) -> RelabelReport | State[Any]:
    """Recomputes what is stale and publishes the next generation.

    Args:
        dataset: its root, a local path or s3://bucket/prefix.
        config: a whole run, a recipe's name, or None for the settings of the latest generation.
        inputs: looked through for new images; None is where its images came from so far.
        max_shards, max_gpu_hours, order: caps; see RelabelCaps.
        sign_off: wait for a person before publishing.
        wait_s: how long to wait for another writer of this dataset; 0 is refused at once.

    Returns:
        What was done. A scheduled run whose dataset is taken ends as "Skipped" (skipping.py).

    Raises:
        WriterBusy: another relabel, retraining or loop works on the dataset.
        ConfigError, InputError, StorageError, ClusterError, RunStopped: with the cause and the cure.
    """
    began = time.monotonic()
    note_process()
    caps = RelabelCaps(max_shards=max_shards, max_gpu_hours=max_gpu_hours, order=order)
    run = config if isinstance(config, RunConfig) else settings_of(dataset, config, None, ())
    try:
        with steps.writing(dataset, "relabel", wait_s=patience_s(wait_s)):
            look_for_images(dataset, inputs, run)
            spec = steps.describe_run(dataset, run)
            plan = find_stale(spec, run, caps)
            annotated = patient(recompute)(spec, run, plan)
            if sign_off and relabel_steps.would_publish(spec, plan, annotated):
                ask_person(plan, annotated)
            published = publish(spec, run)
    except WriterBusy as busy:
        return skipped(busy)
    report = relabel_steps.make_report(plan, annotated, published, seconds=time.monotonic() - began)
    show(report)
    return report


@task(name="look for new images", cache_policy=NO_CACHE)
def look_for_images(dataset: str, inputs: list[str] | None, config: RunConfig) -> None:
    """New files of the inputs are planned."""
    watcher().step("looking for new images")
    get_run_logger().info("%s", relabel_steps.plan_new_images(dataset, inputs, config))


@task(name="find what is stale", cache_policy=NO_CACHE)
def find_stale(spec: RunSpec, config: RunConfig, caps: RelabelCaps) -> RelabelPlan:
    """What lacks which column, and what of it this run does."""
    watcher().step("finding what is stale")
    plan = make_relabel_plan(spec, config, caps)
    lines_artifact(plan_lines(plan), key="maskmill-relabel-plan", description=f"dataset {plan.dataset}")
    return plan


@task(name="recompute", cache_policy=NO_CACHE)
def recompute(spec: RunSpec, config: RunConfig, plan: RelabelPlan) -> Annotated:
    """The chosen shards' columns, by Ray's workers, or here where no model is needed."""
    if not plan.chosen:
        return Annotated()
    watcher().step(f"recomputing {plan.num_images} images in {len(plan.chosen)} shards")
    artifact = ProgressArtifact("maskmill-progress")
    last = Tally(images_total=plan.num_images, shards_total=len(plan.chosen))

    def on_tally(tally: Tally) -> None:
        nonlocal last
        last = tally
        watcher().tally(tally)
        artifact.update(tally)

    annotated = relabel_steps.recompute(spec, config, plan, on_tally)
    artifact.update(last, last=True)
    return annotated


def ask_person(plan: RelabelPlan, annotated: Annotated) -> None:
    """Waits until a person says whether to publish.

    A deployment's run gives its process back meanwhile and starts anew when it is resumed, finding what was
    committed; another run waits in place.

    Raises:
        NotSignedOff: the answer is no.
    """
    from prefect import runtime
    from prefect.flow_runs import pause_flow_run, suspend_flow_run

    lines_artifact(plan_lines(plan), key="maskmill-sign-off", description="to be published, if you agree")
    wait = suspend_flow_run if runtime.deployment.id else pause_flow_run
    answer = wait(wait_for_input=SignOff, timeout=SIGN_OFF_TIMEOUT_S)
    assert isinstance(answer, SignOff)
    if not answer.publish:
        raise NotSignedOff(
            f"not signed off: {annotated.new_images} images stay committed and unpublished; "
            "run relabel again to publish them after all"
        )


@task(name="publish", cache_policy=NO_CACHE)
def publish(spec: RunSpec, config: RunConfig) -> Published:
    """The next generation: what was made where it is committed, the generation before elsewhere."""
    watcher().step("verifying and publishing")
    return publishing.publish_and_verify(spec, config, made_by="relabel", partial=True)


@task(name="report", cache_policy=NO_CACHE)
def show(report: RelabelReport) -> None:
    """Leaves the difference as artifacts: a table, and the largest differences as a picture."""
    from maskmill.flows.report.report import difference_lines

    lines_artifact(
        relabel_steps.summary(report), key="maskmill-relabel", description=f"dataset {report.dataset}"
    )
    if report.diff is not None:
        lines_artifact(
            difference_lines(report.diff),
            key="maskmill-diff",
            description=f"generation {report.diff.before} -> {report.diff.after}",
        )
        png = relabel_steps.difference_picture(report.diff)
        if png is not None and len(png) <= MAX_SHEET_BYTES:
            image_artifact(png, key="maskmill-differences", description="before (left), after (right)")
