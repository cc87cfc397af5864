"""The run `relabel`: recompute exactly what is stale, publish, and say what changed.

    new images are planned -> stale shards are found and chosen by the caps -> their columns are made -> a
    generation is published that keeps every other shard as it was -> the difference is reported

A person may sign off before anything is published. Nothing is lost by stopping: what was made is committed
and is found by the next run. The writer's lock is held throughout. Ray is imported only where a model is
needed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import Tally, watcher
from maskmill.flows.report.words import duration
from maskmill.flows.runs.steps import planning
from maskmill.flows.runs.steps.annotating import Annotated, annotate_shards, without_idle
from maskmill.flows.runs.steps.holding import writing
from maskmill.flows.runs.steps.publishing import Published, publish_and_verify
from maskmill.flows.runs.steps.relabel_plan import RelabelCaps, RelabelPlan, make_relabel_plan
from maskmill.flows.runs.steps.taking import step
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import latest, load_generation
from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.errors import InputError
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import ShardTask

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


class NotSignedOff(RuntimeError):
    """A person answered that this is not to be published; what was made stays committed."""


class NotHere(Exception):
    """A relabel was left to whoever has more at hand, before anything was recomputed.

    Attributes:
        spec: what is to be made.
        plan: of what.
    """

    def __init__(self, spec: RunSpec, plan: RelabelPlan) -> None:
        super().__init__(f"{len(plan.chosen)} shards are left to another run")
        self.spec, self.plan = spec, plan


def relabel(
    dataset: str,
    config: RunConfig,
    *,
    inputs: Sequence[str] | None = None,
    caps: RelabelCaps | None = None,
    wait_s: float = 0.0,
    begin: Callable[[RelabelPlan], bool] = lambda plan: True,
    sign_off: Callable[[RelabelPlan, Annotated], None] | None = None,
) -> RelabelReport:
    """Recomputes what is stale and publishes the next generation.

    Args:
        dataset: its root.
        config: the settings; `settings_of` has those of the latest generation.
        inputs: looked through for new images; None is where its images came from so far.
        caps: how much to do; None is all.
        wait_s: how long to wait for another writer of this dataset, seconds; 0 is refused at once.
        begin: is told the plan, and says whether this call is to carry it out.
        sign_off: asked before anything is published; raises NotSignedOff to leave it unpublished.

    Raises:
        WriterBusy: another writer works on the dataset.
        NotHere: `begin` declines; new images are planned, nothing else is done.
        NotSignedOff: as `sign_off` decides.
        ConfigError, InputError, StorageError, ClusterError, RunStopped: with the cause and the cure.
    """
    began = time.monotonic()
    with writing(dataset, "relabel", wait_s=wait_s, makes=bool(inputs)):
        look_for_images(dataset, inputs, config)
        spec = planning.describe_run(dataset, config)
        plan = find_stale(spec, config, caps or RelabelCaps())
        if not begin(plan):
            raise NotHere(spec, plan)

        annotated = recompute(spec, config, plan)
        if sign_off is not None and would_publish(spec, annotated):
            sign_off(plan, annotated)
        published = publish(spec, config)

    return make_report(plan, annotated, published, seconds=time.monotonic() - began)


@step("look for new images")
def look_for_images(dataset: str, inputs: Sequence[str] | None, config: RunConfig) -> None:
    """New files of the inputs are planned.

    Raises:
        InputError: a named input cannot be used.
    """
    watcher().step("looking for new images", "file")
    watcher().record(plan_new_images(dataset, inputs, config))


@step("find what is stale")
def find_stale(spec: RunSpec, config: RunConfig, caps: RelabelCaps) -> RelabelPlan:
    """What lacks which column, and what of it this run does.

    Raises:
        StorageError: the dataset cannot be read.
    """
    watcher().step("finding what is stale")
    return make_relabel_plan(spec, config, caps)


@step("recompute", may_pass=True)
def recompute(spec: RunSpec, config: RunConfig, plan: RelabelPlan) -> Annotated:
    """Makes the lacking columns of the chosen shards, on Ray's workers, or here where no model is needed.

    Raises:
        ClusterError, RunStopped, LeaseLost: as `annotate_shards`.
        StorageError: a shard could not be read or written, where it is done in this process.
    """
    if not plan.chosen:
        return Annotated()
    watcher().step(f"recomputing {plan.num_images} images in {len(plan.chosen)} shards")
    if plan.needs_model or plan.num_images > MAX_IMAGES_HERE:
        return annotate_shards(spec, config, plan.chosen)
    return _select_here(spec, plan)


@step("publish")
def publish(spec: RunSpec, config: RunConfig) -> Published:
    """The next generation: what was made where it is committed, the generation before elsewhere.

    Raises:
        StorageError: records contradict each other, or cannot be read.
    """
    watcher().step("verifying and publishing")
    return publish_and_verify(spec, config, made_by="relabel", partial=True)


def plan_new_images(dataset: str, inputs: Sequence[str] | None, config: RunConfig) -> str:
    """Plans new files of the inputs; None is every place that the dataset was planned from.

    Inputs that are gone since are left out with a note: what was taken from them is in the dataset.

    Returns:
        What was planned, in a sentence.

    Raises:
        InputError: a named input cannot be used.
    """
    if inputs is not None:
        return str(planning.plan_images(dataset, inputs, config, None))

    known: dict[str, None] = {}
    for part in load_plans(open_store(dataset)).parts:
        known |= dict.fromkeys(part.inputs)
        run = dataclasses.replace(config.run, shard_size=part.shard_size)  # cut as the last ones were
        config = config.model_copy(update={"run": run})

    usable = []
    for place in known:
        try:
            planning.check_inputs(dataset, [place])
        except InputError as exc:
            watcher().note(f"not looked through for new images: {exc}")
        else:
            usable.append(place)
    return str(planning.plan_images(dataset, usable, config, None)) if usable else "no input to look through"


def _select_here(spec: RunSpec, plan: RelabelPlan) -> Annotated:
    """Masks from stored candidates, in this process: no Ray, no model."""
    from maskmill.workers.shard.turn import run_shard
    from maskmill.workers.stages.build import build_stages

    began = time.monotonic()
    stages = build_stages(without_idle(spec, plan.chosen))
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
        watcher().tally(tally)
    return Annotated(new_images=tally.images_done, seconds=time.monotonic() - began)


def would_publish(spec: RunSpec, annotated: Annotated) -> bool:
    """Whether there is anything to sign off: made now, or committed before and not published."""
    return bool(annotated.new_images) or not is_published(spec)


def is_published(spec: RunSpec) -> bool:
    """Whether the latest generation has everything that is committed of the run's versions."""
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
    from maskmill.workers.measure.compare import compare

    assert published.generation is not None
    store = open_store(plan.dataset)
    after = load_generation(store, published.generation)
    if after.parent is None:
        return None
    watcher().step("comparing with the generation before", "shard")
    return compare(store, load_generation(store, after.parent), after, progress=watcher().count)


def difference_picture(diff: DiffReport) -> bytes | None:
    """A PNG of the largest differences; None where no masks differ."""
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
