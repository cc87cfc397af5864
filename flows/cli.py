"""The command line. Imports nothing that is slow: each command fetches what it needs when it runs.

Exit codes: see flows/console.py, and `maskmill --help`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Annotated

import typer

from flows.commands.catalog import diff, import_column, log, query, show, tag
from flows.commands.demo import demo, photos, scenes
from flows.commands.deploy import deploy
from flows.commands.drill import drill
from flows.commands.evaluate import evaluate, promote
from flows.commands.generate import generate
from flows.commands.ingest import ingest
from flows.commands.inspect import export, preview, status, verify
from flows.commands.maintain import forget, gc
from flows.commands.models import models
from flows.commands.prefect_words import SETTINGS, prefect
from flows.commands.relabel import relabel
from flows.commands.settings import config_app
from flows.commands.train import distill, loop, retrain, review
from flows.commands.tune import tune
from flows.commands.up import up

EPILOG = (
    "Exit codes: 0 done; 1 the dataset is not sound (missing, duplicated or damaged images); 2 a command, "
    "setting or input is wrong; 3 something around it failed (storage, Ray, Prefect); 130 stopped."
)

app = typer.Typer(
    help="Images in, a versioned SA-1B-style dataset of masks out. Start with: maskmill demo demo",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"maskmill {importlib.metadata.version('maskmill')}")
        raise typer.Exit


@app.callback()
def maskmill(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


command: Callable[..., None]
for command in (generate, ingest, relabel, status, verify, preview, export, log, diff, show, query, tag):
    app.command()(command)
for command in (
    evaluate,
    review,
    retrain,
    distill,
    loop,
    promote,
    tune,
    demo,
    scenes,
    photos,
    up,
    deploy,
    drill,
):
    app.command()(command)
for command in (gc, forget, models):
    app.command()(command)
app.command("import")(import_column)
app.command(context_settings=SETTINGS)(prefect)
app.add_typer(config_app, name="config")


def main() -> None:
    """The entry point of `maskmill`."""
    app()
