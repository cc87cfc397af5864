"""`maskmill ingest`: take images in on machines without a GPU, to be annotated later."""

from __future__ import annotations

import dataclasses
import shlex
import time
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.options import (
    ConfigFile,
    Dataset,
    Debug,
    Inputs,
    Json,
    Limit,
    RayAddress,
    Recipe,
    Sets,
    run_sets,
)
from maskmill.flows.report import console

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maskmill.flows.config import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What came of it.

    Attributes:
        images, shards: planned in the whole dataset.
        new_images: taken in or rejected now.
        failed_shards: shard -> why it was given up.
        seconds: of the whole.
        remarks: what is worth a look -> images taken in now that it is true of.
    """

    dataset: str
    images: int
    shards: int
    new_images: int
    failed_shards: Mapping[int, str]
    seconds: float
    remarks: Mapping[str, int] = dataclasses.field(default_factory=dict)


def ingest(
    dataset: Dataset,
    input: Inputs,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    limit: Limit = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers at once; by default one a CPU.", metavar="N")
    ] = None,
    ray_address: RayAddress = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take images in without annotating them: plan, check, normalise, store.

    Needs no GPU and no model. `generate` does it too; ahead of it, on cheaper machines, a GPU need not wait
    for decoding and scaling. Give it the settings that generate will have. Safe to stop and to repeat.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import load_config
        from maskmill.flows.report.report import watching

        run = load_config(recipe, config, run_sets(set, workers, ray_address))
        with console.live_watcher() as watcher, watching(watcher):
            report = take_in(dataset, input, run, limit=limit)
        if json:
            console.print_json(dataclasses.asdict(report))
        else:
            _show(report, input)
        if report.failed_shards:
            raise typer.Exit(console.NOT_SOUND)


def take_in(dataset: str, inputs: list[str], config: RunConfig, *, limit: int | None) -> IngestReport:
    """Plans the inputs and takes in what isn't yet. Raises as `generate` does."""
    from maskmill.flows.report.report import watcher
    from maskmill.flows.runs import steps
    from maskmill.storage.plan.plan import load_plans
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.jobs.ingest import ingest_spec, ingest_stages

    began = time.monotonic()
    steps.check_inputs(dataset, inputs)
    run = config.run
    spec = ingest_spec(
        dataset, config.ingest, decode_threads=run.decode_threads, encode_threads=run.encode_threads
    )
    with steps.driving(dataset):
        watcher().step("planning: listing and hashing the inputs")
        steps.plan_images(dataset, inputs, config, limit)
        shards = steps.pending_shards(spec)
        watcher().step(f"taking in {sum(shards.values())} images in {len(shards)} shards")
        done = steps.annotate_shards(spec, config, shards, watcher().tally, build=ingest_stages)
    plan = load_plans(open_store(dataset))
    return IngestReport(
        dataset=dataset,
        images=plan.num_images,
        shards=plan.num_shards,
        new_images=done.new_images,
        failed_shards=done.failed_shards,
        seconds=round(time.monotonic() - began, 1),
        remarks=done.remarks,
    )


def _show(report: IngestReport, inputs: list[str]) -> None:
    console.print_pairs(
        [
            ("images", f"{report.images} in {report.shards} shards"),
            ("taken in now", report.new_images),
            ("seconds", report.seconds),
        ],
        title=report.dataset,
    )
    for shard, reason in report.failed_shards.items():
        console.note(f"shard {shard} is not taken in: {reason}")
    words = ["maskmill", "generate", report.dataset]
    words += [word for name in inputs for word in ("--input", name)]
    console.next_steps([(shlex.join(words), "annotate them")])
