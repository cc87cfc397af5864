"""`maskmill browse`: a dataset in the browser, to look through and to review."""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from typing import Annotated

import typer

from maskmill.flows.commands.help import completer
from maskmill.flows.commands.options import ConfigFile, Dataset, Debug, Only, Recipe, Sets, Which
from maskmill.flows.report import console


def _orders() -> Iterable[str]:
    """The orders of pictures that the page lists."""
    from maskmill.storage.browse.filters import SORTS

    return SORTS


def browse(
    dataset: Dataset,
    generation: Which = None,
    column: Annotated[
        str | None, typer.Option(help="The column with the masks; imports have another.", metavar="NAME")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who reviews; your login name by default.", metavar="NAME")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="The page's port on 127.0.0.1; 0 takes a free one. A dataset has its own by default.",
            metavar="PORT",
        ),
    ] = None,
    open: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in this machine's browser.")
    ] = True,
    review: Annotated[bool, typer.Option("--review", help="Open the first picture to review.")] = False,
    order: Annotated[
        str,
        typer.Option(
            help="In which order to review: key, random, hardest, lowest IoU, ... as the page lists them.",
            metavar="ORDER",
            autocompletion=completer(_orders),
        ),
    ] = "key",
    only: Only = "",
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    debug: Debug = False,
) -> None:
    """Look through a dataset, and review it, in the browser.

    Filters, sorts, masks under the cursor; clicks answered by the segmenter in force. The page is for this
    machine alone (127.0.0.1, a new token each start); Ctrl-C ends it, and what was saved is kept.
    """
    with console.clear_errors(debug=debug):
        from maskmill.flows.config import load_config
        from maskmill.flows.runs import browse as runs

        run = load_config(recipe, config, set or [])
        runs.browse(
            dataset,
            run,
            runs.BrowseOptions(
                generation=generation,
                column=column,
                person=by or getpass.getuser(),
                port=port,
                opens=open,
                order=order,
                reviews=review,
                only=only,
            ),
            started=_say,
        )


def _say(address: str) -> None:
    console.out.print(f"browse at  [bold]{console.plain(address)}[/bold]\n[dim]Ctrl-C ends it[/dim]")
