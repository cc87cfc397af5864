"""`maskmill generate`: annotate images, or say what it would cost."""

from __future__ import annotations

import dataclasses
import shlex
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
    Workers,
    run_sets,
)
from maskmill.flows.report import console
from maskmill.flows.report.words import count

if TYPE_CHECKING:
    from maskmill.flows.config import RunConfig
    from maskmill.flows.report.report import RunReport


def generate(
    dataset: Dataset,
    input: Inputs,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    limit: Limit = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Annotate a few images, write nothing, predict time and size.")
    ] = False,
    export: Annotated[
        str | None, typer.Option(help="Export the generation here afterwards.", metavar="DEST")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Annotate images and publish the next generation.

    Safe to stop and to repeat: the same command goes on where it stopped, and annotates only what is new.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import load_config
        from maskmill.storage.stores.open import open_store

        run = load_config(recipe, config, run_sets(set, workers, ray_address))
        if export is not None:
            open_store(export)
        if dry_run:
            from maskmill.flows.commands.make.estimate import show_estimate

            show_estimate(dataset, input, run, json=json)
            return
        report = run_watched(dataset, input, run, limit=limit, export_to=export)
        show_report(report, json=json)
        console.exit_unless(report.sound)


def run_watched(
    dataset: str, inputs: list[str], config: RunConfig, *, limit: int | None, export_to: str | None
) -> RunReport:
    """A run with live progress on standard error."""
    from maskmill.flows.deployments.quick_start import run_generate

    with console.watched():
        return run_generate(dataset, inputs, config, limit=limit, export_to=export_to)


def show_report(report: RunReport, *, json: bool) -> None:
    """The end of a run: what happened, and what to do next."""
    from maskmill.flows.report.report import summary
    from maskmill.workers.run.reject_reasons import explained

    if json:
        console.print_json(dataclasses.asdict(report))
        return
    console.out.print(_verdict(report))
    console.print_pairs(summary(report))
    for sentence in explained(report.rejects):
        console.note(sentence)
    if report.annotated and not report.masks:
        console.note("no mask passed the thresholds; `maskmill tune INPUT` shows what lower ones would keep")
    for problem in report.problems[:10]:
        console.note(problem)
    for shard, reason in report.failed_shards.items():
        console.note(f"shard {shard} is not annotated: {reason}")
    console.next_steps(_next(report))


def _verdict(report: RunReport) -> str:
    if not report.sound:
        lacking = count(report.missing, "image")
        return f"[red]Not complete[/red]: {lacking} missing, {report.damaged:,} damaged."
    if report.new_images:
        new = count(report.new_images, "new image")
        return f"[green]Done[/green]: {new}, in generation {report.generation}."
    if report.published:
        return (
            f"[green]Done[/green]: published as generation {report.generation}; nothing had to be annotated."
        )
    return (
        f"[green]Nothing to do[/green]: {count(report.images, 'image')} in generation {report.generation}; "
        "nothing was recomputed."
    )


def _next(report: RunReport) -> list[tuple[str, str]]:
    dataset = shlex.quote(report.dataset)
    steps = []
    if not report.sound:
        steps.append((console.command_line(), "try again what is missing; what is committed is not repeated"))
        steps.append((f"maskmill verify {dataset} --deep", "read every byte and say what is wrong"))
    elif report.annotated:
        steps.append((f"maskmill browse {dataset}", "look through it and correct it, in the browser"))
        steps.append((f"maskmill preview {dataset} --out preview", "look at a sample: preview/index.html"))
        if report.export is None:
            steps.append((f"maskmill export {dataset} DEST --format sa1b", "write SA-1B tars to train on"))
    steps.append((f"maskmill status {dataset}", "what the dataset holds"))
    return steps
