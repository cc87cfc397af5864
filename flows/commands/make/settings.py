"""`maskmill config`: the recipes, and the whole of a run's settings."""

from __future__ import annotations

from typing import Annotated

import typer

from maskmill.flows.commands.options import ConfigFile, Debug, Json, Sets
from maskmill.flows.report import console

config_app = typer.Typer(help="Recipes, and what a run's settings are.", no_args_is_help=True)


@config_app.command("list")
def list_recipes(json: Json = False) -> None:
    """The recipes that ship with maskmill, and what each is for."""
    from maskmill.workers.run.recipe import recipe_names, recipe_purpose

    purposes = {name: recipe_purpose(name) for name in recipe_names()}
    if json:
        console.print_json(purposes)
        return
    console.print_pairs(purposes.items())
    console.next_steps(
        [("maskmill config show nano > my.toml", "a file to change and give as --config my.toml")]
    )


@config_app.command("show")
def show(
    recipe: Annotated[str | None, typer.Argument(help="nano, fast or sa1b.")] = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """The whole resolved run as TOML, every default spelled out; --config reads it back."""
    with console.clear_errors(debug=debug):
        from maskmill.flows.config import load_config, to_toml

        resolved = load_config(recipe, config, set or [])
        if json:
            console.print_json(resolved.model_dump(mode="json"))
        else:
            typer.echo(to_toml(resolved), nl=False)
