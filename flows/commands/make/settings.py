"""`maskmill config`: the recipes, and the whole of a run's settings."""

from __future__ import annotations

from typing import Annotated

import typer

from maskmill.flows.commands.help import Command, Commands, completer
from maskmill.flows.commands.options import ConfigFile, Debug, Json, Sets
from maskmill.flows.report import console
from maskmill.flows.report.words import choice
from maskmill.workers.run.recipe import recipe_names

config_app = typer.Typer(cls=Commands, help="List recipes, show a run's settings.", no_args_is_help=True)


@config_app.command("list", cls=Command)
def list_recipes(json: Json = False) -> None:
    """List the recipes that ship with maskmill, and what each is for."""
    from maskmill.workers.run.recipe import recipe_purpose

    purposes = {name: recipe_purpose(name) for name in recipe_names()}
    if json:
        console.print_json(purposes)
        return
    console.print_pairs(purposes.items())
    console.next_steps(
        [("maskmill config show nano > my.toml", "a file to change and give as --config my.toml")]
    )


@config_app.command("show", cls=Command)
def show(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help=f"{choice(recipe_names())}; nano by default.", autocompletion=completer(recipe_names())
        ),
    ] = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a run's settings as TOML, every default spelled out; --config reads it back."""
    with console.clear_errors(debug=debug):
        from maskmill.flows.config import load_config, to_toml

        resolved = load_config(recipe, config, set or [])
        if json:
            console.print_json(resolved.model_dump(mode="json"))
        else:
            typer.echo(to_toml(resolved), nl=False)
