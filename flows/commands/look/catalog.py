"""`maskmill log`, `diff`, `show`, `query`, `tag`: what a dataset holds, held, and how it came about."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskmill.flows.commands.options import Dataset, Debug, Json, Which, a_name, file_to_write
from maskmill.flows.report import console

if TYPE_CHECKING:
    from maskmill.storage.dataset.query import QueryResult
    from maskmill.workers.jobs.import_column import ImportReport
    from maskmill.workers.measure.compare import DiffReport

Older = Annotated[str, typer.Argument(help="A generation: number, tag or 'latest'.")]
Picture = Annotated[
    Path | None,
    typer.Option("--picture", help="Write a PNG to look at here.", callback=file_to_write, dir_okay=False),
]


def log(dataset: Dataset, json: Json = False, debug: Debug = False) -> None:
    """List the generations: when, from which, by which models and settings."""
    with console.clear_errors(debug=debug):
        from maskmill.flows.report.catalog import history

        entries = history(dataset)
        if json:
            console.print_json(entries)
            return
        for entry in entries:
            console.print_pairs(_entry_lines(entry), title=_entry_title(entry))


def _entry_title(entry: dict[str, Any]) -> str:
    tags = f"  ({', '.join(entry['tags'])})" if entry["tags"] else ""
    return f"generation {entry['number']}{tags}"


def _entry_lines(entry: dict[str, Any]) -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = [("  published", entry["created_utc"])]
    lines.append(("  from", entry["parent"] if entry["parent"] is not None else "nothing before it"))
    lines += [(f"  {name}", f"{total:,.0f}") for name, total in entry["totals"].items()]
    for column, versions in entry["versions"].items():
        text = ", ".join(f"{digits} ({shards} shards)" for digits, shards in sorted(versions.items()))
        lines.append((f"  {column}", text))
    lines += [(f"  {role}", name) for role, name in entry["models"].items()]
    lines += [(f"  {name}", f"{old} -> {new}") for name, (old, new) in entry["changed"].items()]
    return lines


def diff(
    dataset: Dataset,
    before: Older,
    after: Annotated[str, typer.Argument(help="Another one.")] = "latest",
    max_shards: Annotated[
        int, typer.Option(min=1, help="Read at most so many changed shards of a column, spread.")
    ] = 64,
    picture: Picture = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two generations.

    Masks added, removed and changed (by IoU), captions, labels, settings and models.
    """
    with console.clear_errors(debug=debug):
        from maskmill.storage.dataset.tags import find_generation
        from maskmill.storage.stores.open import open_store
        from maskmill.workers.measure.compare import compare

        store = open_store(dataset)
        old, new = find_generation(store, before), find_generation(store, after)
        with console.live_watcher() as watcher:
            watcher.step(f"comparing generations {old.number} and {new.number}")
            report = compare(store, old, new, max_shards=max_shards, progress=watcher.count)
        if picture is not None and report.largest:
            from maskmill.workers.measure.difference_sheet import difference_sheet

            picture.write_bytes(difference_sheet(store, old, new, report.largest))
        if json:
            console.print_json(dataclasses.asdict(report))
            return
        show_diff(report)
        if picture is not None:
            done = f"picture: {picture}" if report.largest else "no masks differ: no picture was written"
            console.out.print(console.plain(done))


def show_diff(report: DiffReport) -> None:
    """A difference for people."""
    from maskmill.flows.report.report import difference_lines

    lines = difference_lines(report)
    title = f"generation {report.before} -> {report.after}"
    console.print_pairs(lines or [("the same", "no shard has other bytes")], title=title)
    for image in report.largest[:5]:
        console.out.print(
            f"  {image.key}: {image.added} added, {image.removed} removed, {image.changed} changed"
        )


def show(
    dataset: Dataset,
    key: Annotated[str, typer.Argument(help="An image's key (nine digits) or id.")],
    generation: Which = None,
    picture: Picture = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show one image: all its columns, and what made each."""
    with console.clear_errors(debug=debug):
        from maskmill.flows.report.catalog import show_image

        found = show_image(dataset, key, generation)
        if picture is not None:
            from maskmill.flows.report.catalog import image_picture

            picture.write_bytes(image_picture(dataset, found["key"], found["shard"], found["generation"]))
        if json:
            console.print_json(found)
            return
        planned = found["planned"]
        source = planned["source"] + (f"::{planned['member']}" if planned["member"] else "")
        lines = [("source", source), ("shard", found["shard"]), ("sha256", planned["sha256"])]
        console.print_pairs(lines, title=f"{found['key']} in generation {found['generation']}")
        for column in found["columns"]:
            title = f"{column['column']} {column['fingerprint']}"
            console.print_pairs(_column_lines(column), title=title)


def _column_lines(column: dict[str, Any]) -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = [("  made", f"{column['created_utc']}, attempt {column['attempt']}")]
    lines += [(f"  {role}", name) for role, name in column["models"].items()]
    lines.append(("  in", column["data"]))
    if column["rejected"]:
        lines.append(("  rejected", f"{column['rejected']['reason']}: {column['rejected']['detail']}"))
    elif isinstance(column["value"], dict):
        lines += [(f"  {name}", _short(value)) for name, value in column["value"].items()]
    return lines


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        scores = [row["predicted_iou"] for row in value if "predicted_iou" in row]
        best = f", predicted IoU {min(scores):.3f} to {max(scores):.3f}" if scores else ""
        return f"{len(value)}{best} (--json shows them)"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def query(
    dataset: Dataset,
    sql: Annotated[str, typer.Argument(help='Such as "select count(*) from masks where area_px > 10000".')],
    generation: Which = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows to show at most.")] = 1000,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that it may take.")] = 300.0,
    unsafe: Annotated[bool, typer.Option(help="Let it read and write files, and load extensions.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask a generation's index in SQL.

    Tables: masks (a row per mask), images, shards, and each other column: labels, names, captions, ... By
    default a query reads these and nothing else: no files, no network.
    """
    with console.clear_errors(debug=debug):
        from maskmill.storage.dataset.query import run_query
        from maskmill.storage.dataset.tags import find_generation
        from maskmill.storage.stores.open import open_store
        from maskmill.workers.reading.word_rows import rows_for

        store = open_store(dataset)
        result = run_query(
            store,
            find_generation(store, generation),
            sql,
            max_rows=max_rows,
            timeout_s=timeout,
            unsafe=unsafe,
            rows_for=rows_for,
        )
        if json:
            rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
            console.print_json({"rows": _plain(rows), "truncated": result.truncated})
            return
        _print_result(result)


def _print_result(result: QueryResult) -> None:
    console.print_rows(
        result.columns, [["" if cell is None else str(cell) for cell in row] for row in result.rows]
    )
    if result.truncated:
        console.note(f"only the first {len(result.rows)} rows; --max-rows shows more")


def _plain(value: Any) -> Any:
    """What JSON can hold: dates, decimals and bytes as text."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def import_column(
    dataset: Dataset,
    files: Annotated[
        list[Path], typer.Argument(help="COCO's JSON, or SA-1B's JSON files, tars or folders.", exists=True)
    ],
    format: Annotated[str, typer.Option(help="coco or sa1b.")] = "coco",
    column: Annotated[str, typer.Option(help="The column's name in the dataset.")] = "given",
    images: Annotated[
        list[str] | None, typer.Option("--images", help="Where the images are, if they are not in it yet.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="person: people made these masks, so they count as reviews.")
    ] = None,
    who: Annotated[
        str | None,
        typer.Option(help="With --by person: whose they are; this account by default.", callback=a_name),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take annotations in as a column: COCO or SA-1B.

    Matched to the dataset's images by file name, whole folders at a time, and published beside its masks:
    `show` and `export --column` use them. What cannot be taken is left out and counted. Masks `--by person`
    are reviews as well: training, audits, previews and exports take them before automatic ones.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import ConfigError
        from maskmill.flows.runs import import_column as runs
        from maskmill.flows.runs.review import this_person

        if by not in (None, "person") or (who is not None and by is None):
            raise ConfigError("--by is person, or left out where nobody knows; --who says which person")
        maker = (who or this_person()) if by is not None else None
        with console.watched():
            report = runs.import_column(dataset, files, format=format, column=column, images=images, by=maker)
        if json:
            console.print_json(dataclasses.asdict(report))
            return
        console.out.print(f"[green]{column}[/green] is in generation {report.generation}")
        console.print_pairs(_import_lines(report))


def _import_lines(report: ImportReport) -> list[tuple[str, Any]]:
    """The account of an import: images, then annotations, each with what was left out."""
    lines: list[tuple[str, Any]] = [("images", report.num_images)]
    lines += [(f"  without annotations: {reason}", count) for reason, count in report.rejects.items()]
    lines += [
        ("images named in the files", report.matched + report.unmatched + report.ambiguous),
        ("  in the dataset", report.matched),
        ("  not in the dataset", report.unmatched),
        ("  ambiguous", report.ambiguous),
    ]
    lines += [(f"  left out: {reason}", count) for reason, count in report.images_left_out.items()]
    lines += [("annotations read", report.num_annotations), ("  taken as masks", report.num_masks)]
    for reason, count in report.left_out.items():
        first = ", ".join(report.first_left_out[reason])
        lines.append((f"  left out: {reason}", f"{count} ({first}{', ...' if count > 5 else ''})"))
    lines += [(f"reviews by people: {what}", count) for what, count in report.reviews.items()]
    if report.bad_rings:
        lines.append(("  rings left out of polygons", report.bad_rings))
    return lines


def tag(
    dataset: Dataset,
    name: Annotated[str | None, typer.Argument(help="The tag; leave out to list all.")] = None,
    generation: Annotated[str, typer.Argument(help="What it names: number, tag or 'latest'.")] = "latest",
    remove: Annotated[bool, typer.Option("--remove", help="Take the tag away.")] = False,
    note: Annotated[str, typer.Option(help="Why, for people.")] = "",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Name a generation, or list the names."""
    with console.clear_errors(debug=debug):
        from maskmill.flows.runs import marks
        from maskmill.storage.dataset.tags import tags
        from maskmill.storage.stores.open import open_store

        if name is not None:
            marks.tag(dataset, name, None if remove else generation, note=note)
        found = tags(open_store(dataset))
        if json:
            console.print_json({text: dataclasses.asdict(each) for text, each in found.items()})
            return
        console.print_pairs(
            [(each.name, f"generation {each.generation}  {each.note}".rstrip()) for each in found.values()]
            or [("no tags", f"maskmill tag {shlex.quote(dataset)} NAME gives the latest generation one")]
        )
