"""What a run is to do, found out before any work: its columns' fingerprints, the plan of its images, and the
shards that lack something.

Storage is the only truth: each step looks at what is committed, so it may be repeated, by this driver or
another, without harm. Nothing here imports Prefect or Ray.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.plan import cutting
from maskmill.storage.plan.inputs import list_inputs, most_of
from maskmill.storage.plan.make_plan import plan_parts
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.columns import MASKS
from maskmill.workers.run.dataset_models import in_force
from maskmill.workers.run.spec import make_spec

if TYPE_CHECKING:
    from maskmill.storage.plan.make_plan import PlanSummary
    from maskmill.workers.run.spec import RunSpec


def describe_run(dataset: str, config: RunConfig) -> RunSpec:
    """Everything a worker needs, with the fingerprints of the columns it will write.

    The segmenter is the dataset's promoted model where one is in force; see workers/run/dataset_models.py.

    Raises:
        WeightsError: a model's weights are missing or damaged.
        ValueError: a vocabulary has no phrases.
    """
    return make_spec(
        dataset,
        work=config.run.work(),
        **{**config.column_sections(), "segmenter": in_force(open_store(dataset), config.segmenter)},
    )


def check_inputs(dataset: str, inputs: Sequence[str]) -> None:
    """Looks at every input just far enough to know that it can be used.

    Raises:
        InputError: one cannot.
    """
    list_inputs(inputs, dataset_root=dataset)


def plan_images(dataset: str, inputs: Sequence[str], config: RunConfig, limit: int | None) -> PlanSummary:
    """Plans what is new in the inputs: keys, duplicates, shard cuts. Unchanged inputs plan nothing.

    What was seen and isn't used is told, by ending or kind.

    Raises:
        InputError: an input is missing, unreadable or holds no image.
    """
    *_, summary = part_summaries(dataset, inputs, config, limit, watcher().count, due=lambda: False)
    tell_unused(summary)
    return summary


def part_summaries(
    dataset: str,
    inputs: Sequence[str],
    config: RunConfig,
    limit: int | None,
    progress: Callable[[int], None],
    *,
    due: Callable[[], bool] | None = None,
) -> Iterator[PlanSummary]:
    """Plans what is new in the inputs, in parts; what was found so far after each, and at the end.

    Args:
        dataset, inputs, config, limit: of the run.
        progress: called now and then with the number of inputs looked at.
        due: whether a part is to be written; None goes by the time (storage/plan/cutting.py).

    Raises:
        InputError: an input is missing, unreadable or holds no image.
    """
    return plan_parts(
        open_store(dataset),
        inputs,
        shard_size=config.run.shard_size or measured_shard_size(dataset, inputs, config, limit),
        limit=limit,
        photograph=config.ingest.photograph,
        progress=progress,
        due=due or cutting.PartClock(),
    )


def tell_unused(summary: PlanSummary) -> None:
    """Tells what was seen in the inputs and isn't used, by ending or kind."""
    if summary.skipped_by_ending:
        watcher().note(f"not used of the inputs: {most_of(summary.skipped_by_ending)}")


def measured_shard_size(dataset: str, inputs: Sequence[str], config: RunConfig, limit: int | None) -> int:
    """Images of a shard where [run] names no number; see storage/plan/cutting.py.

    Raises:
        InputError: an input cannot be used.
    """
    workers = config.run.workers
    if workers is None and config.run.ray_address is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    most = cutting.MOST * cutting.SHARDS_A_WORKER * (workers or 1)
    listing = list_inputs(inputs, dataset_root=dataset, photograph=config.ingest.photograph)
    count = cutting.count_up_to(listing, most)
    if count is not None and limit is not None:
        count = min(count, limit)
    return cutting.cut(count, workers, cutting.seconds_an_image(open_store(dataset), MASKS))


def is_complete(spec: RunSpec) -> bool:
    """Whether there is a plan and every shard of it has all columns of this run."""
    return load_plans(open_store(spec.root)).num_shards > 0 and not pending_shards(spec)


def pending_shards(spec: RunSpec) -> dict[int, int]:
    """Planned shards that lack a column of this run: shard -> images planned in it."""
    plan, finished = load_plans(open_store(spec.root)), finished_shards(spec)
    return {shard: plan.num_images_of(shard) for shard in range(plan.num_shards) if shard not in finished}


def finished_shards(spec: RunSpec) -> set[int]:
    """Shards that have all columns of this run."""
    store = open_store(spec.root)
    columns = [ColumnVersion(store, name, digits) for name, digits in spec.fingerprints.items()]
    return set.intersection(*(version.committed() for version in columns))
