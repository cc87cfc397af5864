"""`maskmill gc` and `maskmill forget`: remove what nothing names, and what must not be kept."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.options import Dataset, Debug, Json, Yes
from maskmill.flows.report import console
from maskmill.flows.report.words import count, size

if TYPE_CHECKING:
    from maskmill.storage.care.forget import ForgetPlan
    from maskmill.storage.care.garbage import Garbage

MAX_NAMED = 1000

KINDS = {
    "data": "objects of lost races and killed writers",
    "attempt": "notes of what workers had in hand",
    "manifest": "manifests of generations that lost their race",
    "plan": "tables of plans that lost theirs",
    "driver": "heartbeats of killed drivers",
    "unfinished": "unfinished uploads and temporary files",
    "version": "column versions in no generation",
}


def gc(
    dataset: Dataset,
    versions: Annotated[
        bool, typer.Option("--versions", help="Also whole column versions that no generation names.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove what nothing names any more.

    Leftovers of lost races and killed writers, older than a day, that no generation, no record in force and
    no running driver needs. Shows them first.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.runs.collect import collect, look_for_garbage

        found = look_for_garbage(dataset, versions=versions)
        if not json:
            _show_garbage(dataset, found)
        done = bool(found) and console.agreed(
            f"Remove {count(len(found), 'object')}?",
            yes=yes,
            json=json,
            again=f"maskmill gc {shlex.quote(dataset)}{' --versions' if versions else ''} --yes",
        )
        if done:
            with console.watched():
                found = collect(dataset, found, versions=versions)
        if json:
            console.print_json(_garbage_json(found, done))
        elif done:
            console.out.print(f"[green]Removed[/green] {count(len(found), 'object')}.")


def _show_garbage(dataset: str, found: list[Garbage]) -> None:
    if not found:
        console.out.print(f"[green]Nothing to remove[/green] in {console.plain(dataset)}.")
        return
    counts = Counter(one.kind for one in found)
    sizes = Counter[str]()
    for one in found:
        sizes[one.kind] += one.size_bytes
    lines = [
        (purpose, f"{counts[kind]:,}, {size(sizes[kind])}") for kind, purpose in KINDS.items() if counts[kind]
    ]
    console.print_pairs(lines, title=f"Named by nothing in {dataset}, and older than a day")


def _garbage_json(found: list[Garbage], done: bool) -> dict[str, object]:
    return {
        "removed": done,
        "objects": len(found),
        "bytes": sum(one.size_bytes for one in found),
        "by_kind": dict(Counter(one.kind for one in found)),
        "names": [one.name for one in found[:MAX_NAMED]],
    }


def forget(
    dataset: Dataset,
    keys: Annotated[list[str], typer.Argument(help="Keys of images, such as 000000017 (or 17).")],
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove images and all that came from them, and publish.

    Their pictures, masks and words go from every column and version; they are never taken in again. Older
    generations can no longer read the shards that held them. Shows what it would do first.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.runs import forget as runs

        asked = runs.look_before_forgetting(dataset, keys)
        if not json:
            _show_forget(asked)
        again = shlex.join(["maskmill", "forget", dataset, *asked.keys, "--yes"])
        done = asked.done or console.agreed("Forget them for good?", yes=yes, json=json, again=again)
        report = runs.forget(dataset, asked.keys) if done and not asked.done else None
        if json:
            fields = dataclasses.asdict(report) if report is not None else None
            console.print_json({"plan": dataclasses.asdict(asked), "done": done, "report": fields})
        elif report is not None:
            console.out.print(
                f"[green]Forgotten[/green]: {count(len(asked.keys), 'image')}; "
                f"{count(report.num_removed, 'object')} removed, generation {report.generation}."
            )


def _show_forget(asked: ForgetPlan) -> None:
    if asked.done:
        are = "is" if len(asked.keys) == 1 else "are"
        console.out.print(f"[green]Nothing to do[/green]: {', '.join(asked.keys)} {are} forgotten.")
        return
    console.out.print("[bold]To be forgotten[/bold]")
    for key, source in zip(asked.keys, asked.sources, strict=True):
        console.out.print(f"{key}  {console.plain(source)}")
    console.print_pairs(
        [
            ("shards to rewrite", ", ".join(str(shard) for shard in asked.shards)),
            ("in", ", ".join(asked.versions)),
            ("size", size(asked.rewritten_bytes)),
            (
                "generations that lose these shards",
                ", ".join(str(number) for number in asked.generations) or "none",
            ),
        ]
    )
    console.note(
        "the files they came from, exports made before and old object versions of a bucket are not touched"
    )
