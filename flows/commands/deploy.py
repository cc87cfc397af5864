"""`maskmill deploy`: the flow as a Prefect deployment, for schedules and for starting runs from Prefect's
pages."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import console
from flows.commands.options import ConfigFile, Dataset, Debug, Inputs, Recipe, Sets


def deploy(
    dataset: Dataset,
    input: Inputs,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    name: Annotated[str, typer.Option(help="The deployment's name.")] = "default",
    pool: Annotated[
        str | None,
        typer.Option(help="Register with this process work pool, made if need be, instead of serving here."),
    ] = None,
    cron: Annotated[str | None, typer.Option(help='When to run, such as "0 3 * * *".')] = None,
    debug: Debug = False,
) -> None:
    """Offer `generate` as a Prefect deployment.

    Served by this process, or on a process work pool.
    Needs a Prefect server: PREFECT_API_URL, or a profile with one.
    """
    with console.clear_errors(debug=debug):
        from flows.config import load_config

        run = load_config(recipe, config, set or [])
        from flows import deploy as deployment

        parameters = deployment.parameters(dataset, input, run)
        if pool is None:
            console.out.print(f"serving generate/{name}; Ctrl-C ends it. Start a run with:")
            console.out.print(f"  prefect deployment run generate/{name}")
            deployment.serve(name, parameters, cron)
            return
        deployment.register(name, parameters, cron, pool)
        console.out.print(f"[green]registered[/green] generate/{name} with work pool {pool}")
        console.next_steps(
            [
                (
                    f"prefect worker start --pool {pool} --type process",
                    "where the runs shall run; keep it running",
                ),
                (f"prefect deployment run generate/{name}", "start a run"),
            ]
        )
