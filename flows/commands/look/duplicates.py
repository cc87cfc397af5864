"""`maskmill duplicates`: pictures of a dataset that are the same again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.options import Dataset, Debug, Json, Which
from maskmill.flows.report import console

if TYPE_CHECKING:
    from maskmill.workers.reading.near_duplicates import Duplicates

SHOWN = 20


def duplicates(
    dataset: Dataset,
    generation: Which = None,
    max_distance: Annotated[
        int, typer.Option(min=0, max=128, help="Bits of 256 in which two hashes may differ.")
    ] = 48,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find pictures that are the same again: recompressed, resized, brightened.

    By perceptual hashes, made when pictures are taken in; pictures of older shards are read again for it.
    Changes nothing.
    """
    with console.clear_errors(debug=debug):
        from maskmill.storage.dataset.tags import find_generation
        from maskmill.storage.stores.open import open_store
        from maskmill.workers.reading.near_duplicates import find_duplicates, known_pictures

        store = open_store(dataset)
        found_in = find_generation(store, generation)
        with console.live_watcher() as watcher:
            watcher.step(f"comparing the pictures of generation {found_in.number}", "shard")
            pictures = known_pictures(store, found_in, decode=True, progress=watcher.count)
            found = find_duplicates(pictures, max_distance)

        if json:
            facts = {"generation": found_in.number, "images": found.num_images, "copies": found.num_copies}
            console.print_json({**facts, "flat": found.num_flat, "groups": found.groups})
            return
        _show(dataset, found_in.number, found)


def _show(dataset: str, generation: int, found: Duplicates) -> None:
    """The account, the first groups, and what to do with one."""
    lines = [
        ("images", found.num_images),
        ("groups of near-duplicates", len(found.groups)),
        ("images beyond the first of each", found.num_copies),
    ]
    if found.num_flat:
        lines.append(("too flat to be compared", found.num_flat))
    console.print_pairs(lines, title=f"generation {generation}")

    for group in found.groups[:SHOWN]:
        console.out.print(f"  {'  '.join(group)}")
    if len(found.groups) > SHOWN:
        console.note(f"only the first {SHOWN} groups; --json has them all")
    if found.groups:
        root, (first, *copies) = shlex.quote(dataset), found.groups[0]
        console.next_steps(
            [
                (f"maskmill show {root} {first} --picture a.png", "look at one"),
                (f"maskmill forget {root} {' '.join(copies)}", "remove its copies, and all made of them"),
            ]
        )
