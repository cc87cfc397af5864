"""`maskmill relabel`: recompute exactly what is stale."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.help import one_of
from maskmill.flows.commands.options import (
    ConfigFile,
    Dataset,
    Debug,
    Json,
    Only,
    RayAddress,
    Recipe,
    Sets,
    Workers,
    file_to_write,
    run_sets,
)
from maskmill.flows.report import console

if TYPE_CHECKING:
    from maskmill.flows.config import RunConfig
    from maskmill.flows.runs.relabel import RelabelReport
    from maskmill.flows.runs.steps.relabel_plan import RelabelCaps


def relabel(
    dataset: Dataset,
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="Look here for new images; by default where the old came from.",
            metavar="IMAGES",
        ),
    ] = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    max_shards: Annotated[int | None, typer.Option(min=1, help="Do at most so many shards.")] = None,
    max_gpu_hours: Annotated[
        float | None,
        typer.Option(help="Do what should take at most so many hours of a worker.", metavar="HOURS"),
    ] = None,
    order: Annotated[
        str,
        typer.Option(help="Which shards first; worst is by mean predicted IoU.", **one_of("oldest", "worst")),
    ] = "oldest",
    only: Only = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; write nothing.")] = False,
    wait: Annotated[
        float,
        typer.Option(min=0, help="How long to wait for another writer of the dataset.", metavar="SECONDS"),
    ] = 0.0,
    workers: Workers = None,
    ray_address: RayAddress = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            help="Write the largest differences as a PNG here.",
            callback=file_to_write,
            dir_okay=False,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Recompute what is stale, and nothing else.

    New images, changed settings, a newly promoted model. By the settings of the latest generation, unless
    --recipe, --config or --set say otherwise. Shows its plan first, publishes a generation that keeps every
    other shard as it was, and says what changed. Shards are worked whole: --only takes those that hold any
    picture of a set.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.runs.steps.relabel_plan import RelabelCaps, settings_of

        run = settings_of(dataset, recipe, config, run_sets(set, workers, ray_address))
        caps = RelabelCaps(max_shards=max_shards, max_gpu_hours=max_gpu_hours, order=order, only=only)
        if dry_run or not json:
            _show_plan(dataset, run, caps, json=json, dry_run=dry_run)
        if dry_run:
            return
        report = _run_watched(dataset, input, run, caps, wait)
        if picture is not None:
            _write_picture(report, picture)
        _show_report(report, json=json)
        console.exit_unless(report.sound)


def _write_picture(report: RelabelReport, picture: Path) -> None:
    """The largest differences as a PNG, where there are any."""
    from maskmill.flows.runs.relabel import difference_picture

    png = difference_picture(report.diff) if report.diff is not None else None
    if png is not None:
        picture.write_bytes(png)


def _show_plan(dataset: str, run: RunConfig, caps: RelabelCaps, *, json: bool, dry_run: bool) -> None:
    from maskmill.flows.runs.steps.planning import describe_run
    from maskmill.flows.runs.steps.relabel_plan import make_relabel_plan, plan_lines

    plan = make_relabel_plan(describe_run(dataset, run), run, caps)
    if json:
        console.print_json(dataclasses.asdict(plan))
        return
    title = "Dry run: nothing was written" if dry_run else "Plan (new images are looked for next)"
    console.print_pairs(plan_lines(plan), title=title)
    for unknown in plan.notes:
        console.note(unknown)


def _run_watched(
    dataset: str, inputs: list[str] | None, run: RunConfig, caps: RelabelCaps, wait_s: float
) -> RelabelReport:
    from maskmill.flows.deployments.quick_start import run_relabel

    with console.watched():
        return run_relabel(dataset, inputs, run, caps, wait_s=wait_s)


def _show_report(report: RelabelReport, *, json: bool) -> None:
    from maskmill.flows.runs.relabel import summary

    if json:
        console.print_json(dataclasses.asdict(report))
        return
    if report.published:
        console.out.print(f"[green]Done[/green]: published as generation {report.generation}.")
    else:
        console.out.print("[green]Nothing to do[/green]: nothing is stale, nothing was recomputed.")
    console.print_pairs(summary(report))
    for shard, reason in report.failed_shards.items():
        console.note(f"shard {shard} keeps what it had: {reason}")
    if report.diff is not None:
        from maskmill.flows.commands.look.catalog import show_diff

        show_diff(report.diff)
        words = shlex.join(["maskmill", "diff", report.dataset, str(report.diff.before)])
        console.next_steps([(f"{words} --picture diff.png", "see the largest differences")])
