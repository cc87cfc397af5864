"""`maskmill models`: which models each role can have, where their weights come from, what is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Annotated, Any

import typer

from maskmill.flows.commands.help import completer
from maskmill.flows.commands.options import Debug, Json
from maskmill.flows.report import console


def _roles(role: str | None = None) -> tuple[str, ...]:
    """The one role that was asked for, or all. Raises ConfigError for an unknown one."""
    from maskmill.flows.config import ConfigError
    from maskmill.pipeline.settings.families import ROLES

    if role is not None and role not in ROLES:
        raise ConfigError(f"role {role!r} is unknown: use one of {', '.join(ROLES)}")
    return ROLES if role is None else (role,)


def models(
    role: Annotated[
        str | None,
        typer.Argument(
            help="Only this role: segmenter, captioner, filter, detector or namer.",
            autocompletion=completer(_roles),
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the models that can be used, by role.

    With the name that settings give them, weights that fit, and what is not installed.
    """
    with console.clear_errors(debug=debug):
        from maskmill.pipeline.settings.families import FAMILIES

        roles = _roles(role)
        found = [describe(family) for family in FAMILIES if family.role in roles]
        if json:
            console.print_json({"models": found})
            return
        for name in roles:
            console.print_pairs(
                [(one["name"], _line(one)) for one in found if one["role"] == name], title=name
            )
        console.next_steps(
            [
                (
                    "maskmill generate DATASET --input IMAGES --set segmenter.model=sam2 "
                    "--set segmenter.weights=facebook/sam2.1-hiera-large",
                    "weights are a path, or an id of the hub",
                )
            ]
        )


def describe(family: Any) -> dict[str, Any]:
    """A family with what of it is installed here."""
    missing = [module for module in family.needs if not _is_installed(module)]
    cure = f"pip install 'maskmill[{family.extra}]'" if family.extra else "install maskmill again"
    return {
        **dataclasses.asdict(family),
        "weights": family.weights,
        "installed": not missing,
        "missing": missing,
        "cure": cure if missing else None,
    }


def _line(one: dict[str, Any]) -> str:
    notes = [one["title"], f"weights: {one['example']}"]
    if one["gated"]:
        notes.append("gated: log in to the hub")
    if not one["installed"]:
        notes.append(f"NOT INSTALLED ({', '.join(one['missing'])}): {one['cure']}")
    return "; ".join(notes)


def _is_installed(module: str) -> bool:
    """Whether a module is there, without importing what it is in but for the parents' own packages."""
    package, _, inner = module.partition(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not inner:
        return spec is not None
    places = spec.submodule_search_locations or []
    return any(_holds(place, inner) for place in places)


def _holds(place: str, inner: str) -> bool:
    from pathlib import Path

    path = Path(place, *inner.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
