"""`maskmill fetch`: weights by one word, told before they come: source, size, terms."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskmill.flows.commands.options import Debug, Json, Yes
from maskmill.flows.report import console
from maskmill.pipeline.settings.published import PUBLISHED, published, size_text

if TYPE_CHECKING:
    from maskmill.workers.jobs.fetch import Wanted


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Words such as vit_b or mobile_sam, or http addresses; none lists the words."),
    ] = None,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Bring a model's weights to this machine.

    Told first are source, size and licence; a fetch that was cut goes on; the file is checked by its sha256.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.workers.jobs.fetch import wanted

        if not names:
            _list(json=json)
            return
        found = [wanted(name) for name in names]
        lacking = [one for one in found if not one.path.is_file()]
        for one in lacking:
            _tell(one, json=json)
        again = f"{console.command_line()} --yes"
        agreed = not lacking or console.agreed("Fetch?", yes=yes, json=json, again=again)
        console.exit_unless(agreed, console.WRONG_USE)
        told = [_fetched(one, json=json) for one in found]
        if json:
            console.print_json({"fetched": told})
        else:
            _next(names, told)


def _list(*, json: bool) -> None:
    from maskmill.workers.jobs.fetch import of_published

    here = {one.name: of_published(one).path for one in PUBLISHED}
    if json:
        rows = [
            {**dataclasses.asdict(one), "path": str(here[one.name]), "here": here[one.name].is_file()}
            for one in PUBLISHED
        ]
        console.print_json({"weights": rows})
        return
    pairs = []
    for one in PUBLISHED:
        state = "here" if here[one.name].is_file() else "not here"
        about = f"{one.title}; {size_text(one.size_bytes)}; {one.licence}; {one.page}; {state}"
        pairs.append((one.name, about))
    console.print_pairs(pairs)
    console.next_steps([("maskmill fetch vit_b", "bring one")])


def _tell(one: Wanted, *, json: bool) -> None:
    """What is about to come; on standard error where standard output is for JSON."""
    size = size_text(one.size_bytes) if one.size_bytes else "a size that its server will say"
    licence = one.licence or "a licence that its page will say: look before you use it"
    checked = f"checked by {one.told_by}" if one.sha256 else "its sha256 is recorded at this first fetch"
    line = f"{one.file_name}: {size}, {licence}; from {one.url} ({one.page}); to {one.path}; {checked}"
    if json:
        console.note(line)
    else:
        console.out.print(console.plain(line))


def _fetched(one: Wanted, *, json: bool) -> dict[str, Any]:
    from maskmill.workers.jobs.fetch import fetch as fetch_file
    from maskmill.workers.jobs.fetch import record_of

    was_here = one.path.is_file()
    with console.live_watcher(quiet=json) as watcher:
        if not was_here:
            watcher.step(f"fetching {one.file_name}", "megabyte")
        path = fetch_file(
            one, lambda done, total: watcher.count(done // 10**6, total // 10**6 if total else None)
        )
    record = record_of(path)
    return {
        "file": one.file_name,
        "path": str(path),
        "was_here": was_here,
        "sha256": record.sha256 if record else None,
        "checked_against": (record.checked_against or None) if record else None,
    }


def _next(names: list[str], told: list[dict[str, Any]]) -> None:
    for row in told:
        state = "Here already" if row["was_here"] else "Fetched"
        line = f"{row['path']}; {_checked(row)}"
        console.out.print(f"[green]{state}[/green]: {console.plain(line)}")
    steps = []
    for name, row in zip(names, told, strict=True):
        one = published(name)
        weights = one.name if one else shlex.quote(row["path"])
        model = f" --set segmenter.model={one.model}" if one else ""
        recipe = one.recipe if one else "fast"
        command = f"maskmill generate DATASET --input IMAGES --recipe {recipe}{model}"
        steps.append((f"{command} --set segmenter.weights={weights}", "annotate with it"))
    console.next_steps(steps)


def _checked(row: dict[str, Any]) -> str:
    if row["sha256"] is None:
        return "brought by hand, without a record"
    told_by = f"as {row['checked_against']} says" if row["checked_against"] else "recorded: nobody says it"
    return f"sha256 {row['sha256'][:12]}... ({told_by})"
