"""`maskmill tune`: find thresholds on a few images before paying for all."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.options import ConfigFile, Debug, Json, Recipe, Sets, file_to_write
from maskmill.flows.report import console
from maskmill.flows.report.words import count

if TYPE_CHECKING:
    from maskmill.workers.jobs.tune import TuneReport, TuneRow


def tune(
    input: Annotated[
        list[str], typer.Argument(help="Folders, globs, manifests, tars or s3:// prefixes.", metavar="IMAGES")
    ],
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    num_images: Annotated[int, typer.Option("--images", min=1, help="How many images to try.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Draws which images.")] = 0,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            help="Write what the thresholds do to the images as a PNG here.",
            callback=file_to_write,
            dir_okay=False,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the thresholds that suit your images, on a few of them."""
    with console.clear_errors(debug=debug):
        from maskmill.flows.config import load_config
        from maskmill.workers.jobs.tune import tune_inputs

        run = load_config(recipe, config, set or [])
        with console.live_watcher() as watcher:
            watcher.step("annotating a sample at all thresholds", "image")
            report = tune_inputs(
                input,
                ingest=run.ingest,
                masks=run.masks,
                segmenter=run.segmenter,
                num_images=num_images,
                seed=seed,
                verdicts=run.verdicts,
                progress=watcher.count,
            )
        if picture is not None:
            picture.write_bytes(report.picture_png)
        if json:
            fields = dataclasses.asdict(report)
            console.print_json({name: value for name, value in fields.items() if name != "picture_png"})
        else:
            _show(report, picture)
            words = generate_words(input, run.recipe, config, set or [])
            found = report.suggestion
            words += ["--set", f"masks.predicted_iou={found.predicted_iou}"]
            words += ["--set", f"masks.stability={found.stability}"]
            console.next_steps([(shlex.join(words), "annotate all with the suggested thresholds")])


def generate_words(inputs: list[str], recipe: str, config: Path | None, sets: list[str]) -> list[str]:
    """The command that annotates all of the inputs with the run that was tuned; later --set pairs win."""
    words = ["maskmill", "generate", "DATASET", *(word for text in inputs for word in ("--input", text))]
    words += ["--recipe", recipe, *(["--config", str(config)] if config else [])]
    return words + [word for pair in sets for word in ("--set", pair)]


def _show(report: TuneReport, picture: Path | None) -> None:
    suggestion = report.suggestion
    chosen = (suggestion.predicted_iou, suggestion.stability)
    right = ("right",) if report.verdicts else ()
    rows = [
        _cells(row, chosen=(row.predicted_iou, row.stability) == chosen, judged=bool(right))
        for row in report.rows
    ]
    console.print_table(("IoU", "stability", "masks/image", "covered", "fewest", "most", *right, ""), rows)
    console.out.print(f"tried on {count(report.num_images, 'image')}; {console.plain(suggestion.why)}")
    if report.verdicts:
        _show_verdicts(report)
    if picture is not None:
        console.out.print(f"picture: {console.plain(str(picture))}")


def _show_verdicts(report: TuneReport) -> None:
    """What a filter by expected IoU keeps of what the current thresholds give."""
    current = report.current
    console.out.print(
        f"of the masks at IoU {current.predicted_iou:.2f}, stability {current.stability:.2f}, a filter by "
        "verdicts keeps:"
    )
    rows = [
        (
            f"expected_iou >= {row.expected_iou:g}",
            f"{row.masks_per_image:.1f}",
            "-" if row.right is None else f"{row.right:.0%}",
            "-" if row.right_kept is None else f"{row.right_kept:.0%}",
        )
        for row in report.verdicts
    ]
    console.print_table(("--masks-where", "masks/image", "right", "of all right"), rows)
    if not report.is_calibrated:
        console.note("the verifier was calibrated for another model: only the order of its words counts")


def _cells(row: TuneRow, *, chosen: bool, judged: bool) -> tuple[str, ...]:
    return (
        f"{row.predicted_iou:.2f}",
        f"{row.stability:.2f}",
        f"{row.masks_per_image:.1f}",
        f"{100 * row.coverage:.0f} %",
        str(row.masks_min),
        str(row.masks_max),
        *(["-" if row.right is None else f"{row.right:.0%}"] if judged else []),
        "suggested" if chosen else "",
    )
