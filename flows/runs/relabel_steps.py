"""The steps of a relabel as plain functions; imports neither Prefect nor, where no model is needed, Ray."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import Tally, duration, watcher
from maskmill.flows.runs import steps
from maskmill.flows.runs.publishing import Published
from maskmill.flows.runs.relabel_plan import RelabelPlan
from maskmill.flows.runs.steps import Annotated

if TYPE_CHECKING:
    from maskmill.workers.measure.compare import DiffReport
    from maskmill.workers.run.spec import RunSpec

MAX_IMAGES_HERE = 20_000
"""Up to so many images are selected from candidates in this process: Ray takes longer to start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelabelReport:
    """What came of a relabel; `dataclasses.asdict` of it is what `relabel --json` prints.

    Attributes:
        generation: the newest one's number. published: this run published it.
        stale_shards, done_shards: found, and worked by this run. columns: column -> shards made.
        new_images: images worked by this run.
        left_shards: still stale, by the caps or given up.
        predicted_gpu_hours: of what was chosen. seconds: of the whole run.
        used_model: whether a model was loaded.
        missing, duplicated, damaged: what `verify` found; 0 in a sound dataset.
        diff: against the generation before; None where nothing was published or nothing came before.
    """

    dataset: str
    generation: int | None
    published: bool
    stale_shards: int
    done_shards: int
    columns: Mapping[str, int]
    reasons: tuple[str, ...]
    new_images: int
    left_shards: int
    failed_shards: Mapping[int, str]
    predicted_gpu_hours: float | None
    used_model: bool
    missing: int
    duplicated: int
    damaged: int
    seconds: float
    diff: DiffReport | None

    @property
    def sound(self) -> bool:
        """Nothing is duplicated or damaged, and no shard was given up; what the caps left may be missing."""
        return not (self.duplicated or self.damaged or self.failed_shards)


def plan_new_images(dataset: str, inputs: list[str] | None, config: RunConfig) -> str:
    """Plans new files of the inputs; None is every place that the dataset was planned from.

    Inputs that are gone since are left out with a note: what was taken from them is in the dataset.

    Raises:
        InputError: a named input cannot be used.
    """
    from maskmill.storage.errors import InputError
    from maskmill.storage.plan.plan import load_plans
    from maskmill.storage.stores.open import open_store

    if inputs is not None:
        return str(steps.plan_images(dataset, inputs, config, None))
    known: dict[str, None] = {}
    for part in load_plans(open_store(dataset)).parts:
        known |= dict.fromkeys(part.inputs)
        run = dataclasses.replace(config.run, shard_size=part.shard_size)  # cut as the last ones were
        config = config.model_copy(update={"run": run})
    usable = []
    for place in known:
        try:
            steps.check_inputs(dataset, [place])
        except InputError as exc:
            watcher().note(f"not looked through for new images: {exc}")
        else:
            usable.append(place)
    return str(steps.plan_images(dataset, usable, config, None)) if usable else "no input to look through"


def recompute(
    spec: RunSpec, config: RunConfig, plan: RelabelPlan, on_tally: Callable[[Tally], None]
) -> Annotated:
    """Makes the lacking columns of the chosen shards.

    Raises:
        ClusterError, RunStopped: as `steps.annotate_shards`.
        StorageError: a shard could not be read or written, where it is done in this process.
    """
    if plan.needs_model or plan.num_images > MAX_IMAGES_HERE:
        return steps.annotate_shards(spec, config, plan.chosen, on_tally)
    return _select_here(spec, plan, on_tally)


def _select_here(spec: RunSpec, plan: RelabelPlan, on_tally: Callable[[Tally], None]) -> Annotated:
    """Masks from stored candidates, in this process: no Ray, no model."""
    from maskmill.storage.dataset.records import new_attempt
    from maskmill.workers.run.spec import ShardTask
    from maskmill.workers.shard.turn import run_shard
    from maskmill.workers.stages.build import build_stages

    began = time.monotonic()
    stages = build_stages(steps.without_idle(spec, plan.chosen))
    tally = Tally(images_total=plan.num_images, shards_total=len(plan.chosen), workers_ready=1)
    for shard in plan.chosen:
        done = run_shard(stages, ShardTask(shard=shard, attempt=new_attempt()))
        tally = dataclasses.replace(
            tally,
            images_done=tally.images_done + done.num_images,
            masks_done=tally.masks_done + done.num_masks,
            num_rejects=tally.num_rejects + sum(done.rejects.values()),
            shards_done=tally.shards_done + 1,
            elapsed_s=time.monotonic() - began,
        )
        on_tally(tally)
    return Annotated(new_images=tally.images_done, seconds=time.monotonic() - began)


def would_publish(spec: RunSpec, plan: RelabelPlan, annotated: Annotated) -> bool:
    """Whether there is anything to sign off: made now, or committed before and not published."""
    return bool(annotated.new_images) or not is_published(spec)


def is_published(spec: RunSpec) -> bool:
    """Whether the latest generation has everything that is committed of the run's versions."""
    from maskmill.storage.dataset.columns import ColumnVersion
    from maskmill.storage.dataset.generations import latest
    from maskmill.storage.stores.open import open_store

    store = open_store(spec.root)
    generation = latest(store)
    if generation is None:
        return False
    named = {(row.column, row.fingerprint, row.shard) for row in generation.rows()}
    return all(
        (column, digits, shard) in named
        for column, digits in spec.fingerprints.items()
        for shard in ColumnVersion(store, column, digits).committed()
    )


def make_report(
    plan: RelabelPlan, annotated: Annotated, published: Published, *, seconds: float
) -> RelabelReport:
    """Joins what the steps found, and compares the new generation with the one before."""
    check = published.check
    done = len(plan.chosen) - len(annotated.failed_shards)
    return RelabelReport(
        dataset=plan.dataset,
        generation=published.generation,
        published=published.is_new,
        stale_shards=plan.stale_shards,
        done_shards=done,
        columns=plan.chosen_columns,
        reasons=plan.reasons,
        new_images=annotated.new_images,
        left_shards=plan.stale_shards - done,
        failed_shards=annotated.failed_shards,
        predicted_gpu_hours=plan.gpu_hours,
        used_model=bool(plan.chosen) and plan.needs_model,
        missing=check.missing,
        duplicated=check.duplicated,
        damaged=check.damaged,
        seconds=round(seconds, 3),
        diff=_difference(plan, published) if published.is_new else None,
    )


def _difference(plan: RelabelPlan, published: Published) -> DiffReport | None:
    from maskmill.storage.dataset.generations import load_generation
    from maskmill.storage.stores.open import open_store
    from maskmill.workers.measure.compare import compare

    assert published.generation is not None
    store = open_store(plan.dataset)
    after = load_generation(store, published.generation)
    if after.parent is None:
        return None
    watcher().step("comparing with the generation before")
    return compare(store, load_generation(store, after.parent), after, progress=watcher().count)


def difference_picture(diff: DiffReport) -> bytes | None:
    """A PNG of the largest differences; None where no masks differ."""
    from maskmill.storage.dataset.generations import load_generation
    from maskmill.storage.stores.open import open_store
    from maskmill.workers.measure.difference_sheet import difference_sheet

    if not diff.largest:
        return None
    store = open_store(diff.dataset)
    before, after = load_generation(store, diff.before), load_generation(store, diff.after)
    return difference_sheet(store, before, after, diff.largest)


def summary(report: RelabelReport) -> list[tuple[str, Any]]:
    """The report's lines for people."""
    lines: list[tuple[str, Any]] = [("stale shards", report.stale_shards)]
    lines += [("because", reason) for reason in report.reasons]
    lines += [(f"made {column}", f"{shards} shards") for column, shards in report.columns.items()]
    lines.append(("images worked", report.new_images))
    if report.left_shards:
        lines.append(("still stale", f"{report.left_shards} shards; run relabel again for more"))
    if report.predicted_gpu_hours is not None and report.done_shards:
        lines.append(("predicted", f"{report.predicted_gpu_hours:.3g} worker-hours"))
    model = "a model" if report.used_model else "no model"
    lines.append(("took", f"{duration(report.seconds)}, {model} loaded"))
    lines.append(("generation", f"{report.generation}{'' if report.published else ', as before'}"))
    lines += [
        (name, getattr(report, name))
        for name in ("missing", "duplicated", "damaged")
        if getattr(report, name)
    ]
    return lines
