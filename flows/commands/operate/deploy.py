"""`maskmill deploy`: flows as Prefect deployments, for schedules and for Prefect's pages."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from maskmill.flows.commands.help import one_of
from maskmill.flows.commands.options import ConfigFile, Dataset, Debug, Json, Recipe, Sets
from maskmill.flows.report import console

Flows = Annotated[
    list[str] | None,
    typer.Option(
        "--flow",
        help="What to register; generate by default. Repeat for more.",
        **one_of("generate", "relabel", "retrain", "evaluate", "loop"),
    ),
]
Name = Annotated[
    str,
    typer.Option(
        help="Tells it from others of this flow and dataset; the dataset is in every name.", metavar="NAME"
    ),
]
Pool = Annotated[str, typer.Option(help="The work pool, made if need be.", metavar="NAME")]
PoolType = Annotated[str, typer.Option(help="Where its runs go.", **one_of("process", "kubernetes"))]
Container = Annotated[
    str | None,
    typer.Option(help="For Kubernetes: the container image that holds maskmill.", metavar="IMAGE"),
]
Cron = Annotated[
    str | None, typer.Option(help='When to run: "0 3 * * *" is every night at 3.', metavar="WHEN")
]
Timezone = Annotated[str, typer.Option(help="Of the schedule, such as Europe/Berlin.", metavar="ZONE")]


def deploy(
    dataset: Dataset,
    flow: Flows = None,
    input: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="Where images are; generate and loop need it.", metavar="IMAGES"),
    ] = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    name: Name = "",
    pool: Pool = "maskmill",
    pool_type: PoolType = "process",
    image: Container = None,
    cron: Cron = None,
    timezone: Timezone = "UTC",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="For Prefect's filters. Repeat for more.", metavar="TAG")
    ] = None,
    sign_off: Annotated[
        bool, typer.Option("--sign-off", help="relabel: a person must agree before it publishes.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Register flows as Prefect deployments: forms and schedules.

    The same again replaces what was registered, and says so. Needs a Prefect server that stays: `maskmill
    up`, or PREFECT_API_URL. A relabel without --recipe, --config and --set goes by the settings of the
    generation it finds.
    """
    with console.clear_errors(debug=debug):
        from maskmill.flows.config import load_config
        from maskmill.flows.services.prefect import deploy as deployment
        from maskmill.flows.services.prefect.register import register

        asked = recipe is not None or config is not None or bool(set)
        run = load_config(recipe, config, set or [])

        registered = []
        for kind in flow or ["generate"]:
            settings = run if asked or kind != "relabel" else None
            found = deployment.Deployment(
                flow=kind,
                name=name,
                parameters=deployment.parameters(kind, dataset, input or [], settings, sign_off=sign_off),
                pool=pool,
                pool_type=pool_type,
                cron=cron,
                timezone=timezone,
                image=image,
                sign_off=sign_off and kind == "relabel",
                tags=tag or (),
            )
            registered.append(register(found))

        names = [each.name for each in registered]
        if json:
            replaced = {each.name: each.replaced for each in registered if each.replaced}
            console.print_json({"registered": names, "replaced": replaced, "pool": pool})
            return
        for each in registered:
            console.out.print(f"[green]registered[/green] {console.plain(each.name)} with work pool {pool}")
            for text in each.replaced:
                console.note(text)
        _next(names, pool, pool_type)


def _next(registered: list[str], pool: str, pool_type: str) -> None:
    from maskmill.flows.services.state import serves

    steps = [
        (f"maskmill prefect deployment run {shlex.quote(text)}", "start a run now") for text in registered
    ]
    if not serves(pool):
        worker = f"maskmill prefect worker start --pool {shlex.quote(pool)} --type {pool_type}"
        steps.insert(0, (worker, "where the runs shall run; keep it running"))
    console.next_steps(steps)
