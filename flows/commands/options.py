"""Arguments and options that several commands share, and the headings that help lists options under."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskmill.flows.commands.help import completer
from maskmill.workers.run.recipe import recipe_names

SETTINGS = "Settings"
OUTPUT = "Output"

Dataset = Annotated[
    str, typer.Argument(help="The dataset: a folder, or s3://bucket/prefix.", metavar="DATASET")
]
Inputs = Annotated[
    list[str],
    typer.Option(
        "--input",
        "-i",
        help="A folder, glob, .txt manifest, .tar or s3:// prefix of images. Repeat for more.",
        metavar="IMAGES",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        help=f"What to start from: {', '.join(recipe_names())}; nano by default. See `maskmill config list`.",
        metavar="NAME",
        autocompletion=completer(recipe_names()),
        rich_help_panel=SETTINGS,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="A TOML file that changes the recipe.",
        dir_okay=False,
        rich_help_panel=SETTINGS,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        help="One setting, as section.field=value. Repeat for more.",
        metavar="K=V",
        rich_help_panel=SETTINGS,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON on standard output, and nothing else there.",
        rich_help_panel=OUTPUT,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show where in the code an error arose.", rich_help_panel=OUTPUT)
]
Which = Annotated[
    str | None,
    typer.Option(
        "--generation",
        "-g",
        help="Which generation: a number or a tag; the latest by default.",
        metavar="WHICH",
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="The most images the dataset should hold.", metavar="N")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Workers at once; by default as many as fit.", metavar="N")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Join a running Ray cluster: HOST:6379 on one of its nodes, ray://HOST:10001 from elsewhere.",
        metavar="ADDRESS",
    ),
]


def run_sets(set: list[str] | None, workers: int | None, ray_address: str | None) -> list[str]:
    """The --set pairs, with what options of their own say of [run]."""
    pairs = list(set or [])
    pairs += [f"run.workers={workers}"] if workers is not None else []
    pairs += [f"run.ray_address={ray_address}"] if ray_address is not None else []
    return pairs
