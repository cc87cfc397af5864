"""`maskmill log`, `diff`, `show`, `query`, `tag`: what a dataset holds, held, and how it came about."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskmill.flows.commands.options import OUTPUT, Dataset, Debug, Json, Which, file_to_write
from maskmill.flows.report import console
from maskmill.flows.report.words import count, in_order, listed, moment, size

if TYPE_CHECKING:
    from maskmill.storage.query.query import QueryResult
    from maskmill.workers.measure.compare import DiffReport

Older = Annotated[str, typer.Argument(help="A generation: a number, a tag or latest.")]
SHOWN_ROWS = 1000
"""Of a query, on a terminal and as JSON."""

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
    lines: list[tuple[str, Any]] = [("  published", moment(entry["created_utc"]))]
    parent = entry["parent"]
    lines.append(("  from", "nothing before it" if parent is None else f"generation {parent}"))
    lines += [(f"  {name}", f"{total:,.0f}") for name, total in in_order(entry["totals"])]

    for column, versions in entry["versions"].items():
        told = (f"{digits} ({count(shards, 'shard')})" for digits, shards in sorted(versions.items()))
        lines.append((f"  column {column}", ", ".join(told)))
    lines += [(f"  {role}", name) for role, name in entry["models"].items()]
    changed = entry["changed"].items()
    return lines + [(f"  {name}", f"{listed(old)} -> {listed(new)}") for name, (old, new) in changed]


def diff(
    dataset: Dataset,
    before: Older,
    after: Annotated[str, typer.Argument(help="The one to compare it with.")] = "latest",
    max_shards: Annotated[
        int, typer.Option(min=1, help="Read at most so many changed shards of a column, spread over all.")
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
            watcher.step(f"comparing generations {old.number} and {new.number}", "shard")
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
    """Show one image: all its columns, and what made each.

    Before the first generation: what is taken in and made of it so far.
    """
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
        number = found["generation"]
        place = "in no generation yet: as taken in" if number is None else f"in generation {number}"
        console.print_pairs(lines, title=f"{found['key']} {place}")
        if not found["columns"]:
            console.note("planned, and not taken in yet: run the same `maskmill ingest` or `generate` again")
        for column in found["columns"]:
            title = f"{column['column']} {column['fingerprint']}"
            console.print_pairs(_column_lines(column), title=title)


def _column_lines(column: dict[str, Any]) -> list[tuple[str, Any]]:
    made = f"{moment(column['created_utc'])}, attempt {column['attempt']}"
    lines: list[tuple[str, Any]] = [("  made", made)]
    lines += [(f"  {role}", name) for role, name in column["models"].items()]
    lines.append(("  in", column["data"]))
    if column["rejected"]:
        lines.append(("  rejected", f"{column['rejected']['reason']}: {column['rejected']['detail']}"))
    elif isinstance(column["value"], dict):
        known = {name: value for name, value in column["value"].items() if value is not None and value != ""}
        lines += [(f"  {name.removesuffix('_bytes')}", _short(name, value)) for name, value in known.items()]
    return lines


def _short(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return size(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        scores = [row["predicted_iou"] for row in value if "predicted_iou" in row]
        best = f", predicted IoU {min(scores):.3f} to {max(scores):.3f}" if scores else ""
        return f"{len(value):,}{best} (--json shows them)"
    text = listed(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def query(
    dataset: Dataset,
    sql: Annotated[
        str,
        typer.Argument(help='Such as "select count(*) from masks where area_px > 10000".', metavar="SQL"),
    ],
    generation: Which = None,
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, help=f"At most so many rows; {SHOWN_ROWS:,} by default, files have all."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="How long it may take.", metavar="SECONDS")] = 300.0,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every row.", rich_help_panel=OUTPUT)] = False,
    parquet: Annotated[
        Path | None,
        typer.Option(
            help="Write a Parquet file here, every row.",
            callback=file_to_write,
            dir_okay=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Let it read and write files, and load extensions.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask a generation's index in SQL.

    Tables: masks (a row per mask), images, shards, and each other column: labels, names, captions, ... By
    default a query reads these and nothing else: no files, no network.
    """
    with console.clear_errors(debug=debug):
        from maskmill.storage.dataset.tags import find_generation
        from maskmill.storage.query import query_files
        from maskmill.storage.query.query import answering, run_query
        from maskmill.storage.stores.open import open_store
        from maskmill.workers.reading.word_rows import rows_for

        store = open_store(dataset)
        asked = (store, find_generation(store, generation), sql)
        if csv or parquet is not None:
            answer = answering(*asked, timeout_s=timeout, unsafe=unsafe, rows_for=rows_for)
            if parquet is None:
                query_files.write_csv(answer, sys.stdout, max_rows=max_rows)
                return
            num_rows = query_files.write_parquet(answer, parquet, max_rows=max_rows)
            if json:
                console.print_json({"wrote": str(parquet), "rows": num_rows})
            else:
                console.out.print(f"wrote {count(num_rows, 'row')} to {console.plain(str(parquet))}")
            return

        shown = max_rows or SHOWN_ROWS
        result = run_query(*asked, max_rows=shown, timeout_s=timeout, unsafe=unsafe, rows_for=rows_for)
        if json:
            rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
            console.print_json({"rows": _plain(rows), "truncated": result.truncated})
        else:
            _print_result(result)


def _print_result(result: QueryResult) -> None:
    console.print_rows(
        result.columns, [["" if cell is None else str(cell) for cell in row] for row in result.rows]
    )
    if result.truncated:
        console.note(f"only the first {count(len(result.rows), 'row')}; --max-rows shows more, --csv all")


def _plain(value: Any) -> Any:
    """What JSON can hold: dates, decimals and bytes as text."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def tag(
    dataset: Dataset,
    name: Annotated[str | None, typer.Argument(help="The tag; leave it out to list all.")] = None,
    generation: Annotated[str, typer.Argument(help="What it names: a number, a tag or latest.")] = "latest",
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
