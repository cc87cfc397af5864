"""The command line. Imports nothing that is slow: each command fetches what it needs when it runs.

Exit codes: see flows/report/console.py, and `maskmill --help`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Annotated

import typer

from maskmill.flows.commands.help import Command, Commands
from maskmill.flows.commands.improve.evaluate import evaluate, promote
from maskmill.flows.commands.improve.fetch import fetch
from maskmill.flows.commands.improve.models import models
from maskmill.flows.commands.improve.prove import prove
from maskmill.flows.commands.improve.train import distill, loop, retrain, review
from maskmill.flows.commands.improve.verifier import verifier
from maskmill.flows.commands.look.browse import browse
from maskmill.flows.commands.look.catalog import diff, log, query, show, tag
from maskmill.flows.commands.look.duplicates import duplicates
from maskmill.flows.commands.look.export import export
from maskmill.flows.commands.look.inspect import preview, status, verify
from maskmill.flows.commands.look.push import push
from maskmill.flows.commands.make.demo import demo, photos, scenes
from maskmill.flows.commands.make.generate import generate
from maskmill.flows.commands.make.ingest import ingest
from maskmill.flows.commands.make.relabel import relabel
from maskmill.flows.commands.make.settings import config_app
from maskmill.flows.commands.make.take_in import import_column
from maskmill.flows.commands.make.tune import tune
from maskmill.flows.commands.operate.deploy import deploy
from maskmill.flows.commands.operate.doctor import doctor
from maskmill.flows.commands.operate.drill import drill
from maskmill.flows.commands.operate.maintain import forget, gc
from maskmill.flows.commands.operate.prefect_words import SETTINGS, prefect
from maskmill.flows.commands.operate.probe import probe
from maskmill.flows.commands.operate.up import up
from maskmill.flows.report import streams

EPILOG = (
    "Exit codes: 0 done; 1 the dataset is not sound (missing, duplicated or damaged images); 2 a command, "
    "setting or input is wrong; 3 something around it failed (storage, Ray, Prefect); 130 stopped."
)

GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Make a dataset": {
        "demo": demo,
        "generate": generate,
        "ingest": ingest,
        "relabel": relabel,
        "import": import_column,
        "tune": tune,
        "scenes": scenes,
        "photos": photos,
    },
    "Look at it, hand it on": {
        "status": status,
        "preview": preview,
        "show": show,
        "query": query,
        "log": log,
        "diff": diff,
        "duplicates": duplicates,
        "tag": tag,
        "export": export,
        "push": push,
    },
    "People": {"browse": browse, "review": review},
    "Models": {
        "models": models,
        "fetch": fetch,
        "prove": prove,
        "promote": promote,
        "evaluate": evaluate,
    },
    "Improve": {"retrain": retrain, "distill": distill, "loop": loop, "verifier": verifier},
    "Operate": {
        "verify": verify,
        "forget": forget,
        "gc": gc,
        "up": up,
        "deploy": deploy,
        "doctor": doctor,
        "probe": probe,
        "drill": drill,
    },
}
"""Every command by what it is for; help lists them so."""

app = typer.Typer(
    cls=Commands,
    help="Images in, a versioned SA-1B-style dataset of masks out. Start with: maskmill demo demo",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata  # which takes a third of the time of --help

        typer.echo(f"maskmill {importlib.metadata.version('maskmill')}")
        raise typer.Exit


@app.callback()
def maskmill(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What is said before a command's name: --version."""


for _group, _commands in GROUPS.items():
    for _name, _command in _commands.items():
        app.command(_name, cls=Command, rich_help_panel=_group)(_command)
app.add_typer(config_app, name="config", cls=Commands, rich_help_panel="Make a dataset")
app.command(cls=Command, context_settings=SETTINGS, rich_help_panel="Operate")(prefect)


def main() -> None:
    """The entry point of `maskmill`."""
    from maskmill.flows.services import surroundings

    with contextlib.suppress(surroundings.NoPlace):  # said by what needs the place
        for line in surroundings.settle():
            typer.echo(f"note {line}", err=True)
    with streams.prepared():
        app()
