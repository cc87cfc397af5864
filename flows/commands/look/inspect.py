"""`maskmill status`, `verify`, `preview`: look at a dataset, check it, show it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskmill.flows.commands.options import (
    ConfigFile,
    Dataset,
    Debug,
    Json,
    Recipe,
    Sets,
    Which,
    Yes,
    folder_to_write,
)
from maskmill.flows.report import console
from maskmill.flows.report.words import count, duration, in_order, moment, size

if TYPE_CHECKING:
    from maskmill.flows.config import RunConfig
    from maskmill.storage.care.verify import VerifyReport


def status(
    dataset: Dataset,
    watch: Annotated[bool, typer.Option("--watch", help="Look again until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.5, help="Between two looks.", metavar="SECONDS")] = 5.0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a dataset holds, and who works on it now."""
    with console.clear_errors(debug=debug):
        from maskmill.flows.report.status import describe, watched

        if watch:
            _watch(watched(dataset, every_s=every), json=json)
            return
        found = describe(dataset)
        if json:
            console.print_json(found)
            return
        console.print_pairs(_status_lines(found), title=dataset)
        if found["generation"] is None:
            place = shlex.quote(dataset)
            steps = [(f"maskmill generate {place} --input IMAGES", "annotate images into it")]
            if any(version["column"] == "images" for version in found["columns"]):
                steps.append((f"maskmill show {place} 1 --picture 1.png", "look at an image taken in"))
            console.next_steps(steps)


def _watch(looks: Iterator[dict[str, Any]], *, json: bool) -> None:
    """Shows each look, with what changed since the last; with --json a line of JSON each."""
    for found in looks:
        if json:
            console.print_json_line(found)
            continue
        console.out.clear()
        lines = _status_lines(found)
        if found["images_per_s"] is not None:
            left = f", {duration(found['left_s'])} left" if found["left_s"] is not None else ""
            lines.append(("pace", f"{found['images_per_s']:.1f} images/s{left}"))
        console.print_pairs(lines, title=f"{found['dataset']}  (Ctrl-C ends)")


def _status_lines(found: dict[str, Any]) -> list[tuple[str, Any]]:
    planned = f"{found['images']:,} in {count(found['shards'], 'shard')}"
    lines: list[tuple[str, Any]] = [("images planned", planned)]
    lines += [(f"  left out: {reason}", number) for reason, number in found["skipped"].items()]
    for version in found["columns"]:
        name = f"{version['column']} {version['fingerprint']}"
        lines.append((name, f"{version['committed']:,} of {count(found['shards'], 'shard')} committed"))
    generation = found["generation"]
    if generation is None:
        lines.append(("generation", "none yet"))
    else:
        lines.append(("generation", f"{generation['number']}, published {moment(generation['created_utc'])}"))
        lines += [(f"  {name}", f"{total:,.0f}") for name, total in in_order(generation["totals"])]
        lines += [(f"  {role}", name) for role, name in generation["models"].items()]
    reviews = found["reviews"]
    if reviews["pictures"]:
        lines.append(("reviewed by people", f"{reviews['pictures']} pictures, {reviews['saves']} saves"))
    lines += [(f"  open now: {key}", ", ".join(who)) for key, who in reviews["open"].items()]
    lines += [("working on it now", driver) for driver in found["drivers"]]
    return lines


def verify(
    dataset: Dataset,
    deep: Annotated[bool, typer.Option("--deep", help="Read every object and check its sha256.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make damaged shards again and publish; shows them first.")
    ] = False,
    yes: Yes = False,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that every image is there once and whole.

    Annotated or rejected with a reason; exit code 1 if any is missing, duplicated or damaged, or if a plan,
    generation, model or tag is. --repair makes damaged shards again by the settings that made them: recorded
    ones, or --recipe, --config and --set.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        given = _repair_settings(recipe, config, set or [], repair=repair)
        repaired = None
        if repair:
            repaired = _repair(dataset, given, deep=deep, yes=yes, json=json)
        report = _verified(dataset, deep=deep)
        orphans = _orphans(dataset)
        if json:
            console.print_json({**dataclasses.asdict(report), **orphans, "repair": repaired})
        else:
            _show_verified(report, dataset, deep=deep)
            if orphans["orphans"]:
                told, much = count(orphans["orphans"], "object"), size(orphans["orphan_bytes"])
                console.note(f"{told} named by nothing ({much}); see `maskmill gc`")
        console.exit_unless(report.ok)


def _repair_settings(
    recipe: str | None, config: Path | None, sets: list[str], *, repair: bool
) -> RunConfig | None:
    """The settings to repair by, where some are given. Raises ConfigError where nothing is repaired."""
    if recipe is None and config is None and not sets:
        return None
    from maskmill.flows.config import ConfigError, load_config

    if not repair:
        raise ConfigError("--recipe, --config and --set say how to repair: give --repair with them")
    return load_config(recipe, config, sets)


def _verified(dataset: str, *, deep: bool) -> VerifyReport:
    """What there is and how sound it is. Raises NoSuchThing where nothing is planned."""
    from maskmill.storage.care.verify import verify as verify_dataset
    from maskmill.storage.plan.plan import planned
    from maskmill.storage.stores.open import open_store

    report = verify_dataset(open_store(dataset), deep=deep)
    if not report.images and not report.problems:
        planned(open_store(dataset))
    return report


def _orphans(dataset: str) -> dict[str, int]:
    """Data objects that nothing names, however young; 0 and a note where that cannot be known."""
    from maskmill.storage.care.garbage import find_garbage
    from maskmill.storage.errors import DamagedObject
    from maskmill.storage.stores.open import open_store

    try:
        found = [one for one in find_garbage(open_store(dataset), min_age_s=0.0) if one.kind == "data"]
    except DamagedObject as exc:
        console.note(f"what nothing names cannot be told: {exc}")
        found = []
    return {"orphans": len(found), "orphan_bytes": sum(one.size_bytes for one in found)}


def _repair(
    dataset: str, given: RunConfig | None, *, deep: bool, yes: bool, json: bool
) -> dict[str, Any] | None:
    """Shows what is damaged, and makes it again if that is wanted; None if nothing was done."""
    from maskmill.flows.runs.repair import look_for_damage, repair

    with console.watched() as watcher:
        watcher.step("looking for damage", "shard")
        found = look_for_damage(dataset, deep=deep, given=given)
    if not found.damages and not found.unpublished:
        return None
    for damage in found.damages:
        console.note(f"shard {damage.shard}: {damage.column}: {damage.what}: {damage.detail}")
    if found.unpublished:
        console.note(f"records that no generation names yet: {count(len(found.unpublished), 'shard')}")
    again = f"{console.command_line()} --yes"
    question = f"Make {count(len(found.damages), 'damaged column shard')} again, and publish?"
    if not console.agreed(question, yes=yes, json=json, again=again):
        return None
    with console.watched():
        report = repair(dataset, found, deep=deep, given=given)
    for left in report.left:
        console.note(f"not repaired: {left}")
    if report.published and not json:
        console.out.print(
            f"[green]Repaired[/green] {report.repaired} of {report.found}; generation {report.generation}"
        )
    return dataclasses.asdict(report)


def _show_verified(report: VerifyReport, dataset: str, *, deep: bool) -> None:
    names = ("images", "annotated", "rejected", "unannotated", "missing", "duplicated", "damaged")
    console.print_pairs([(name, f"{getattr(report, name):,}") for name in names], title=dataset)
    for problem in report.problems:
        console.note(problem)
    if report.missing or report.duplicated or report.damaged:
        console.out.print(
            "[red]Not sound[/red]: run the same `maskmill generate` again to make what is missing; "
            "`maskmill verify --repair` makes again what is damaged."
        )
    elif not report.ok:
        console.out.print("[red]Not sound[/red]: what is wrong, and what helps, is said above.")
    elif deep:
        console.out.print("[green]Sound[/green]: every byte is what its record says.")
    else:
        console.out.print("[green]Sound[/green] by its records and sizes; --deep reads every byte.")


def preview(
    dataset: Dataset,
    out: Annotated[
        Path, typer.Option(help="The folder to write to.", callback=folder_to_write, file_okay=False)
    ] = Path("preview"),
    generation: Which = None,
    column: Annotated[
        str | None,
        typer.Option(help="The column with the masks: masks, review or an import's.", metavar="NAME"),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a page to look through a sample.

    A self-contained HTML page and a contact sheet (PNG).
    """
    with console.clear_errors(debug=debug):
        page = write_preview(dataset, out, generation, column)
        if json:
            console.print_json({"page": str(page), "sheet": str(page.with_name("sheet.png"))})
        else:
            console.out.print(
                f"wrote {console.plain(str(page))} and sheet.png beside it; open it in a browser"
            )


def write_preview(
    dataset: str, folder: Path, which: int | str | None = None, column: str | None = None
) -> Path:
    """Writes index.html and sheet.png of a generation; returns the page."""
    from maskmill.storage.dataset.tags import find_generation
    from maskmill.storage.stores.open import open_store
    from maskmill.workers.pictures.preview import preview_page
    from maskmill.workers.pictures.render import contact_sheet

    store = open_store(dataset)
    generation = find_generation(store, which)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sheet.png").write_bytes(contact_sheet(store, generation, column=column))
    page = folder / "index.html"
    page.write_text(
        preview_page(store, generation, title=Path(dataset).name, column=column), encoding="utf-8"
    )
    return page
