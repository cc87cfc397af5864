"""`maskmill up`: everything a machine needs to run maskmill all day."""

from __future__ import annotations

import dataclasses
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.options import Debug, Json
from maskmill.flows.report import console

if TYPE_CHECKING:
    from maskmill.flows.services.services import UpSettings


def up(
    host: Annotated[
        str, typer.Option(help="The address that Prefect's server listens on.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port of Prefect's server.", metavar="PORT")
    ] = 4200,
    ray_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of Ray; 0 starts no Ray.", metavar="PORT")
    ] = 6379,
    database: Annotated[
        str | None,
        typer.Option(
            help="Postgres instead of SQLite: postgresql+asyncpg://user:password@host/name.",
            metavar="ADDRESS",
            envvar="MASKMILL_DATABASE",
            show_envvar=True,
        ),
    ] = None,
    pool: Annotated[
        str, typer.Option(help="The work pool that the worker serves.", metavar="NAME")
    ] = "maskmill",
    num_cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs that Ray may use; by default all.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="For databases and logs; by default ~/.maskmill.", file_okay=False)
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Say what runs, start nothing.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End what runs.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Keep Prefect's server, its worker and Ray running on this machine.

    Ctrl-C ends them. `generate`, `relabel` and `deploy` find them by themselves.
    """
    with console.clear_errors(debug=debug):
        from maskmill.flows.services import services
        from maskmill.flows.services import state as up_state

        place = (home or up_state.home()).absolute()
        settings = services.UpSettings(
            home=place,
            host=host,
            port=port,
            ray_port=ray_port,
            database=database,
            pool=pool,
            num_cpus=num_cpus,
        )
        if check or stop:
            _tell(up_state.running(place), stopped=stop and services.stop(place), json=json)
            return

        services.supervise(settings, console.note, ready=partial(_ready, settings))


def _ready(settings: UpSettings) -> None:
    """Says where the pages are, how to log in and what to do next."""
    from maskmill.flows.services.prefect import secret as api_secret

    console.out.print(f"[green]Up[/green]: Prefect's pages are at {settings.api_url[:-4]}")
    secret = shlex.quote(str(api_secret.secret_path(settings.home)))
    pairs = [("log in with", f"what `cat {secret}` prints; commands find it by themselves")]
    console.print_pairs([*pairs, ("logs", settings.home / "logs"), ("work pool", settings.pool)])
    console.next_steps(
        [
            ("maskmill generate DATASET --input IMAGES", "annotate (in another terminal)"),
            ("maskmill deploy DATASET --flow relabel --cron '0 3 * * *'", "relabel every night"),
            ("maskmill up --stop", "end it all, as Ctrl-C does"),
        ]
    )


def _tell(found: object, *, stopped: bool, json: bool) -> None:
    from maskmill.flows.services.state import Running

    fields = dataclasses.asdict(found) if isinstance(found, Running) else None
    if json:
        console.print_json({"running": None if stopped else fields, "stopped": stopped})
    elif fields is None:
        console.out.print("nothing runs; `maskmill up` starts it")
    else:
        console.print_pairs(list(fields.items()), title="stopped" if stopped else "running")
