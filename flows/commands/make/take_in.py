"""`maskmill import`: annotations as a column, or edits that come back from another editor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskmill.flows.commands.help import one_of
from maskmill.flows.commands.options import Dataset, Debug, Json, a_name
from maskmill.flows.report import console
from maskmill.flows.report.words import count

if TYPE_CHECKING:
    from maskmill.workers.jobs.import_column import ImportReport

EDITORS = ("label_studio", "cvat", "fiftyone")
"""Those whose edits come back; workers/tools/take_back.py has their readers."""


def import_column(
    dataset: Dataset,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="COCO's JSON; SA-1B's JSON files, tars or folders; an editor's export.", exists=True
        ),
    ],
    format: Annotated[
        str, typer.Option(help="What the files are.", **one_of("coco", "sa1b", *EDITORS))
    ] = "coco",
    column: Annotated[str, typer.Option(help="The column's name in the dataset.", metavar="NAME")] = "given",
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Where the images are, if they are not in it yet.", metavar="IMAGES"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="People made these masks, so they count as reviews.", **one_of("person")),
    ] = None,
    who: Annotated[
        str | None,
        typer.Option(
            help="Whose masks (--by person) or edits they are, where files don't tell; you by default.",
            metavar="NAME",
            callback=a_name,
        ),
    ] = None,
    generation: Annotated[
        str | None,
        typer.Option(
            "--generation",
            "-g",
            help="For edits: what the editor was given, where its files don't tell; the latest by default.",
            metavar="WHICH",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take annotations in, or edits back from another editor.

    COCO and SA-1B become a column. Edits of an export to Label Studio, CVAT or FiftyOne become reviews
    by who made them: masks that were changed, added, rejected or given another label; what nobody touched
    stays as it is.

    Matched to the dataset's images by file name, whole folders at a time, and published beside its masks:
    `show` and `export --column` use them. What cannot be taken is left out and counted. Masks `--by person`
    are reviews as well: training, audits, previews and exports take them before automatic ones.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.runs import import_column as runs

        if format in EDITORS:
            _refuse(format, {"--column": column != "given", "--images": images, "--by": by})
            _take_back(dataset, files, format=format, which=generation, who=who, json=json)
            return
        _refuse(format, {"--generation": generation})
        maker = _maker(by, who)
        with console.watched():
            report = runs.import_column(dataset, files, format=format, column=column, images=images, by=maker)
        _show_import(report, column, json=json)
        console.exit_unless(_took_any(report), console.WRONG_USE)


def _show_import(report: ImportReport, column: str, *, json: bool) -> None:
    """The account of an import, and what the reasons in it mean."""
    from maskmill.workers.run.reject_reasons import explained

    if json:
        console.print_json(dataclasses.asdict(report))
        return
    console.out.print(f"[green]{column}[/green] is in generation {report.generation}")
    console.print_pairs(_import_lines(report))
    for sentence in explained({**report.rejects, **report.images_left_out, **report.left_out}):
        console.note(sentence)
    if not _took_any(report):
        console.note(
            f"none of {count(report.num_annotations, 'annotation')} could be taken: the column is empty; "
            "mend the file and import it again"
        )


def _take_back(
    dataset: str, files: list[Path], *, format: str, which: str | None, who: str | None, json: bool
) -> None:
    """Edits of another editor as reviews, and the account of them."""
    from maskmill.flows.runs.take_back import take_back

    with console.watched():
        found = take_back(dataset, files, format=format, which=which, who=who)
    if json:
        console.print_json(found)
        return
    read, edited = sum(found["pictures"].values()), sum(found["people"].values())
    said = f"edits of {count(edited, 'picture')}" if edited else "nothing, no picture has new edits"
    console.out.print(f"[green]Taken back[/green]: {said}; {count(read, 'picture')} read")
    pairs = [(f"pictures {what}", f"{number:,}") for what, number in found["pictures"].items()]
    pairs += [(f"  masks {what}", f"{number:,}") for what, number in found["masks"].items()]
    pairs += [(f"  edited by {name}", f"{number:,}") for name, number in found["people"].items()]
    if found["absent"]:
        pairs.append(("pictures that the files don't have", f"{found['absent']:,}, as they were"))
    made = found["generation"] if found["generation"] is not None else "none: nothing is new"
    console.print_pairs([*pairs, ("generation", made)])


def _took_any(report: ImportReport) -> bool:
    """Whether there is any mask, or none was to be expected."""
    return bool(report.num_masks) or not report.num_annotations


def _import_lines(report: ImportReport) -> list[tuple[str, Any]]:
    """The account of an import: images, then annotations, each with what was left out."""
    lines: list[tuple[str, Any]] = [("images", report.num_images)]
    lines += [(f"  without annotations: {reason}", number) for reason, number in report.rejects.items()]
    lines += [
        ("images named in the files", report.matched + report.unmatched + report.ambiguous),
        ("  in the dataset", report.matched),
        ("  not in the dataset", report.unmatched),
        ("  ambiguous", report.ambiguous),
    ]
    lines += [(f"  left out: {reason}", number) for reason, number in report.images_left_out.items()]
    lines += [("annotations read", report.num_annotations), ("  taken as masks", report.num_masks)]
    for reason, number in report.left_out.items():
        first = ", ".join(report.first_left_out[reason])
        lines.append((f"  left out: {reason}", f"{number:,} ({first}{', ...' if number > 5 else ''})"))
    lines += [(f"reviews by people: {what}", f"{number:,}") for what, number in report.reviews.items()]
    if report.bad_rings:
        lines.append(("  rings left out of polygons", report.bad_rings))
    return lines


def _refuse(format: str, options: Mapping[str, object]) -> None:
    """Raises ConfigError for options that were given and say nothing of this format."""
    from maskmill.flows.config import ConfigError

    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise ConfigError(f"{' and '.join(given)}: says nothing of {format}; leave it out")


def _maker(by: str | None, who: str | None) -> str | None:
    """The person whose masks these are, None where nobody is named. Raises ConfigError for other makers."""
    from maskmill.flows.config import ConfigError
    from maskmill.flows.runs.improve.review import this_person

    if by not in (None, "person") or (who is not None and by is None):
        raise ConfigError("--by is person, or left out where nobody knows; --who says which person")
    return (who or this_person()) if by is not None else None
