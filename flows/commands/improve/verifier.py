"""`maskmill verifier`: a verifier of masks that learnt from people."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from maskmill.flows.commands.options import ConfigFile, Dataset, Debug, Json, Recipe, Sets, file_to_write
from maskmill.flows.report import console


def verifier(
    dataset: Dataset,
    out: Annotated[
        Path,
        typer.Argument(
            help="Write the verifier here: a .safetensors file.", metavar="FILE", callback=file_to_write
        ),
    ],
    scenes: Annotated[
        int, typer.Option(min=0, help="Generated scenes to learn from too, where people reviewed little.")
    ] = 0,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the judge of masks on what people accepted, rejected and fixed.

    Its verdicts (expected_iou, p_right, share_found) are a column of the dataset: see `verdicts.verifier`.
    Changes nothing in the dataset.
    """
    with console.clear_errors(debug=debug):
        from maskmill.flows.runs.improve.verifier import train_verifier
        from maskmill.flows.runs.steps.relabel_plan import settings_of

        run = settings_of(dataset, recipe, config, set or [])
        with console.live_watcher():
            found = train_verifier(dataset, run, out, scenes=scenes)
        if json:
            console.print_json(found)
        else:
            _show(dataset, found)


def _show(dataset: str, found: dict[str, Any]) -> None:
    known = found["auc"] is not None
    console.out.print(f"[green]Done[/green]: {console.plain(found['file'])}")
    console.print_pairs(
        [
            ("pictures that people judged", f"{found['pictures']:,}, {found['finished']:,} finished"),
            ("their masks", f"{found['masks']:,}, {found['right']:.0%} right"),
            *([("masks of scenes", f"{found['scene_masks']:,}")] if found["scenes"] else []),
            *((f"masks left out: {why}", f"{n:,}") for why, n in found["left_out"].items()),
            *([("tells right from wrong (AUC)", f"{found['auc']:.3f}")] if known else []),
            *([("predicted IoU alone", f"{found['predicted_iou_auc']:.3f}")] if known else []),
        ]
    )
    words = ["maskmill", "relabel", dataset, "--set", f"verdicts.verifier={found['file']}"]
    console.next_steps([(shlex.join(words), "judge all masks by it")])
