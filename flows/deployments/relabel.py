"""The run `relabel` as a flow: runs/relabel.py with a task for each step, plan and differences as artifacts.

A person may sign off before anything is published: the flow then waits in Prefect, costs nothing, and goes on
when it is resumed.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.input import RunInput

from maskmill.flows.config import RunConfig
from maskmill.flows.deployments.skipping import patience_s, skipped
from maskmill.flows.deployments.tasks import as_tasks
from maskmill.flows.report.report import MAX_SHEET_BYTES, difference_lines, image_artifact, lines_artifact
from maskmill.flows.runs import relabel as run
from maskmill.flows.runs.relabel import NotSignedOff, RelabelReport
from maskmill.flows.runs.steps.annotating import Annotated
from maskmill.flows.runs.steps.relabel_plan import RelabelCaps, RelabelPlan, plan_lines, settings_of
from maskmill.flows.services.prefect.processes import note_process
from maskmill.storage.drivers.one_writer import WriterBusy

SIGN_OFF_TIMEOUT_S = 7 * 24 * 3600


class SignOff(RunInput):
    """What a person answers before a generation is published."""

    publish: bool = True


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
        WriterBusy: another writer works on the dataset.
        ConfigError, InputError, StorageError, ClusterError, RunStopped: with the cause and the cure.
    """
    note_process()
    caps = RelabelCaps(max_shards=max_shards, max_gpu_hours=max_gpu_hours, order=order)
    settings = config if isinstance(config, RunConfig) else settings_of(dataset, config, None, ())
    try:
        with as_tasks():
            report = run.relabel(
                dataset,
                settings,
                inputs=inputs,
                caps=caps,
                wait_s=patience_s(wait_s),
                begin=_show_plan,
                sign_off=ask_person if sign_off else None,
            )
    except WriterBusy as busy:
        return skipped(busy)
    show(report)
    return report


def _show_plan(plan: RelabelPlan) -> bool:
    """Leaves the plan as an artifact; a flow carries out whatever it is."""
    lines_artifact(plan_lines(plan), key="maskmill-relabel-plan", description=f"dataset {plan.dataset}")
    return True


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


@task(name="report", cache_policy=NO_CACHE)
def show(report: RelabelReport) -> None:
    """Leaves the difference as artifacts: a table, and the largest differences as a picture."""
    lines_artifact(run.summary(report), key="maskmill-relabel", description=f"dataset {report.dataset}")
    if report.diff is None:
        return
    lines_artifact(
        difference_lines(report.diff),
        key="maskmill-diff",
        description=f"generation {report.diff.before} -> {report.diff.after}",
    )
    png = run.difference_picture(report.diff)
    if png is not None and len(png) <= MAX_SHEET_BYTES:
        image_artifact(png, key="maskmill-differences", description="before (left), after (right)")
