"""`maskmill probe`: does this store keep what a dataset needs of it?"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from maskmill.flows.commands.options import Debug, Json
from maskmill.flows.report import console
from maskmill.flows.report.words import count, duration


def probe(
    dest: Annotated[str, typer.Argument(help="A folder or s3://bucket/prefix where a dataset may go.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Try whether a bucket or folder can hold a dataset.

    Everything that a dataset needs of a store is tried there. Some 2,000 small objects and 72 MiB are
    written below DEST and removed again, whatever happens. Exit code 1: the store breaks a promise.
    """
    with console.clear_errors(debug=debug):
        from maskmill.storage.stores.suite import probe as probe_store

        with console.live_watcher(quiet=json) as watcher:
            outcomes = probe_store(dest, tell=watcher.step)
        broken = [one for one in outcomes if not one.kept]

        if json:
            rows = [dataclasses.asdict(one) for one in outcomes]
            console.print_json({"dest": dest, "kept": not broken, "promises": rows})
        else:
            rows_shown = [
                (one.name, "yes" if one.kept else "BROKEN", duration(one.seconds), one.detail or one.says)
                for one in outcomes
            ]
            console.print_table(("promise", "kept", "took", "what it says"), rows_shown)
            if broken:
                lacking = f"{len(broken)} of {count(len(outcomes), 'promise')} broken"
                console.note(f"{dest}: no dataset is safe here; {lacking}")
        console.exit_unless(not broken)
