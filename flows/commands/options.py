"""Arguments and options that several commands share, and the headings that help lists options under."""

from __future__ import annotations

import re
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
Only = Annotated[
    str,
    typer.Option(help="Only pictures of this set; `maskmill browse` saves them.", metavar="SET"),
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

MOST_WORKERS = 10_000
_ADDRESS = re.compile(r"[a-z][a-z0-9]+:(/|$)")


def file_to_write(path: Path | None) -> Path | None:
    """Whether a file can be made there, asked before any work.

    Raises:
        typer.BadParameter: it cannot; says why.
    """
    if path is not None:
        _fits(path)
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder: name a file in it")
        if not path.absolute().parent.is_dir():
            raise typer.BadParameter(f"there is no folder {path.parent}: make it, or name another")
    return path


def folder_to_write(path: Path | None) -> Path | None:
    """Whether a folder can be made there, asked before any work.

    Raises:
        typer.BadParameter: it cannot; says why.
    """
    if path is not None:
        _fits(path)
        nearest = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
        if not nearest.is_dir():
            raise typer.BadParameter(
                f"{nearest} is a file, and no folder can be at {path}: name another place"
            )
    return path


def a_name(text: str | None) -> str | None:
    """Whether a name that was given names anybody.

    Raises:
        typer.BadParameter: it is empty.
    """
    if text is not None and not text.strip():
        raise typer.BadParameter("an empty name is nobody's: say whose, or leave the option out")
    return text


def file_and_folder(pair: tuple[Path, Path] | None) -> tuple[Path, Path] | None:
    """Whether annotations and the folder of their pictures are there.

    Raises:
        typer.BadParameter: one is not; says which.
    """
    if pair is not None:
        _fits(*pair)
        if not pair[0].is_file():
            raise typer.BadParameter(f"{pair[0]} is no file: the annotations come first, COCO's JSON")
        two_folders((pair[1], pair[1]))
    return pair


def two_folders(pair: tuple[Path, Path] | None) -> tuple[Path, Path] | None:
    """Whether two folders are there.

    Raises:
        typer.BadParameter: one is not; says which.
    """
    for path in pair or ():
        _fits(path)
        if not path.is_dir():
            raise typer.BadParameter(f"{path} is no folder: is the path right?")
        if not any(path.iterdir()):
            raise typer.BadParameter(f"the folder {path} is empty: is the path right?")
    return pair


def _fits(*paths: Path) -> None:
    """Raises BadParameter where no file system could have such a path."""
    for path in paths:
        if _ADDRESS.match(str(path)):
            raise typer.BadParameter(f"{path} is an address: name a local folder or file")
        try:
            path.exists()
        except (OSError, ValueError) as exc:
            raise typer.BadParameter(f"{str(path)[:60]!r} can be no path here ({exc})") from exc


def run_sets(set: list[str] | None, workers: int | None, ray_address: str | None) -> list[str]:
    """The --set pairs, with what options of their own say of [run]."""
    pairs = list(set or [])
    pairs += [f"run.workers={workers}"] if workers is not None else []
    pairs += [f"run.ray_address={ray_address}"] if ray_address is not None else []
    return pairs
