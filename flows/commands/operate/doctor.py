"""`maskmill doctor`: what would keep a run from working here, a line each, with what to do."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.options import ConfigFile, Debug, Json, RayAddress, Recipe, Sets, run_sets
from maskmill.flows.report import console

if TYPE_CHECKING:
    from maskmill.flows.services.doctor.findings import Finding

MARKS = {"fine": "[green]fine [/green]", "look": "[yellow]look [/yellow]", "wrong": "[red]WRONG[/red]"}


def doctor(
    dataset: Annotated[
        str | None, typer.Argument(help="Where a dataset goes: its store is tried too, as `probe` does.")
    ] = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    ray_address: RayAddress = None,
    speeds: Annotated[
        bool, typer.Option("--speeds/--no-speeds", help="Measure how fast each number format computes here.")
    ] = True,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Look for what would keep a run from working here, and say what to do.

    Machine, surroundings, GPU, weights, Prefect, Ray and its nodes, the store. Changes nothing. Exit code 3:
    something is wrong.
    """
    with console.clear_errors(debug=debug):
        from maskmill.flows.config import load_config
        from maskmill.flows.services.doctor.examine import examine

        run = load_config(recipe, config, run_sets(set, None, ray_address))
        found: list[Finding] = []
        with console.live_watcher(quiet=json) as watcher:
            for finding in examine(
                run, dataset, with_speeds=speeds, tell=watcher.step if not json else _nobody
            ):
                found.append(finding)
                if not json:
                    watcher.above(functools.partial(_show, finding))
        wrong = [one for one in found if one.state == "wrong"]
        if json:
            rows = [dataclasses.asdict(one) for one in found]
            console.print_json({"sound": not wrong, "findings": rows})
        console.exit_unless(not wrong, console.FAILED)


def _show(finding: Finding) -> None:
    says = console.plain(f"{finding.name}: {finding.says}")
    console.out.print(f"{MARKS[finding.state]} {says}")
    if finding.cure:
        console.out.print(f"        {console.plain(finding.cure)}")


def _nobody(title: str) -> None:
    """Where only JSON is to be said."""
