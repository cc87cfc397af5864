"""`maskmill export`: a generation in other people's formats, and what of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskmill.flows.commands.help import completer, one_of
from maskmill.flows.commands.options import Dataset, Debug, Json, Only, Which
from maskmill.flows.report import console
from maskmill.flows.report.words import choice, count, size
from maskmill.workers.exports.formats import format_names, formats_told, with_ids, without_images

if TYPE_CHECKING:
    from maskmill.workers.exports.report import ExportReport

TAKEN = "What is taken"

Where = Annotated[
    str,
    typer.Option(
        help="Which images, in SQL: \"source like '%/cats/%'\"; other tables in subqueries.",
        metavar="SQL",
        rich_help_panel=TAKEN,
    ),
]
MasksWhere = Annotated[
    str,
    typer.Option(
        help='Which masks, in SQL: "predicted_iou > 0.9 and area_px > 400".',
        metavar="SQL",
        rich_help_panel=TAKEN,
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many images.", rich_help_panel=TAKEN)]
Split = Annotated[
    str,
    typer.Option(
        help="Percents of train, val and test: 90/5/5. By a hash of the key: the same in every generation.",
        metavar="PERCENTS",
        rich_help_panel=TAKEN,
    ),
]
ClassNames = Annotated[
    str,
    typer.Option(
        help='The classes, "cat,dog", or a file with one a line; masks of others are left out.',
        metavar="NAMES",
        rich_help_panel=TAKEN,
    ),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        help='A TOML file of "a small kitten" = "cat"; "*" is for the rest, "" says nothing.',
        dir_okay=False,
        rich_help_panel=TAKEN,
    ),
]
LabelScore = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Grounded labels below this don't count.",
        rich_help_panel=TAKEN,
        metavar="SCORE",
    ),
]
Prefer = Annotated[
    str,
    typer.Option(
        help="People's masks where a picture was reviewed, or automatic ones alone.",
        **one_of("people", "automatic"),
    ),
]

IdsOf = Annotated[
    str,
    typer.Option(
        help="Class and image numbers, and coco's file names, as this import has them "
        f"({choice(with_ids())}).",
        metavar="COLUMN",
    ),
]


def what_is_taken(
    where: str,
    masks_where: str,
    limit: int | None,
    split: str,
    classes: str,
    class_map: Path | None,
    min_label_score: float,
) -> dict[str, Any]:
    """The choices of "What is taken" that were made, as fields of `ExportChoices`.

    Raises:
        InputError: a file of classes or the map cannot be read.
    """
    from maskmill.workers.exports.chosen.files import class_names, read_class_map

    choices = {
        "where": where,
        "masks_where": masks_where,
        "limit": limit,
        "split": split,
        "classes": class_names(classes),
        "class_map": read_class_map(class_map),
        "min_label_score": min_label_score,
    }
    return {name: value for name, value in choices.items() if value}


def export(
    dataset: Dataset,
    dest: Annotated[str, typer.Argument(help="An empty or new folder, or s3://bucket/prefix.")],
    format: Annotated[
        str,
        typer.Option(help=f"{formats_told()}.", metavar="FORMAT", autocompletion=completer(format_names())),
    ] = "sa1b",
    generation: Which = None,
    images: Annotated[
        bool, typer.Option(help=f"Write the photographs; only {choice(without_images())} can do without.")
    ] = True,
    column: Annotated[
        str, typer.Option(help="The column with the masks; imports have another.", metavar="NAME")
    ] = "masks",
    polygons: Annotated[
        bool, typer.Option("--polygons", help="coco and lvis only: masks as polygons, not run lengths.")
    ] = False,
    prefer: Prefer = "people",
    ids_of: IdsOf = "",
    only: Only = "",
    where: Where = "",
    masks_where: MasksWhere = "",
    limit: Limit = None,
    split: Split = "",
    classes: ClassNames = "",
    class_map: ClassMap = None,
    min_label_score: LabelScore = 0.0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a generation out in the forms that others read: SA-1B, COCO, YOLO and more.

    Self-contained files that know nothing of maskmill. An export that was stopped goes on.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import validate
        from maskmill.flows.runs.export import export_generation

        form = {
            "format": format,
            "images": images,
            "column": column,
            "polygons": polygons,
            "prefer": prefer,
            "ids_of": ids_of,
            "only": only,
        }
        taken = what_is_taken(where, masks_where, limit, split, classes, class_map, min_label_score)
        config = validate({"export": {**form, **taken}})
        with console.watched() as watcher:
            watcher.step(f"exporting to {dest}", "image")
            report = export_generation(dataset, generation, config.export, dest)
        _show(report, json=json)


def _show(report: ExportReport, *, json: bool) -> None:
    if json:
        console.print_json(dataclasses.asdict(report))
        return
    verb = "was there already, complete" if report.already_complete else "written"
    console.out.print(f"[green]{report.format}[/green] of generation {report.generation} {verb}")
    console.print_pairs(
        [
            ("where", report.destination),
            ("images", f"{report.num_images:,}"),
            ("masks", f"{report.num_masks:,}"),
            *_reviewed_lines(report),
            ("size", size(report.size_bytes)),
            *((f"left out: {reason}", f"{number:,}") for reason, number in report.left_out.items() if number),
        ]
    )


def _reviewed_lines(report: ExportReport) -> list[tuple[str, str]]:
    """How much of an export is people's; nothing where none of it is."""
    if not report.num_reviewed_images:
        return []
    others = report.num_images - report.num_reviewed_images
    return [
        ("  people's", f"{count(report.num_reviewed_masks, 'mask')} drawn or confirmed"),
        ("  reviewed images", f"{report.num_reviewed_images:,}, the other {others:,} automatic alone"),
    ]
