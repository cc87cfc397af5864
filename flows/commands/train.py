"""`maskmill retrain`: a new version of the segmenter from a generation."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from flows import console
from flows.commands.options import ConfigFile, Dataset, Debug, Json, Recipe, Sets

Gate = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        help="Annotations and pictures that a gate measures on; none may be in DATASET.",
        metavar="COCO IMAGES",
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Training processes; several share each batch by DDP.")]


def retrain(
    dataset: Dataset,
    generation: Annotated[
        int | None, typer.Option("--generation", "-g", min=1, help="To train on; the latest by default.")
    ] = None,
    workers: Workers = 1,
    start: Annotated[
        str, typer.Option(help="promoted (the model in force) or base ([segmenter] as it is).")
    ] = "promoted",
    gate: Gate = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Put the result in force if the gate accepts it.")
    ] = False,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune the segmenter on a generation.

    Safe to stop and to repeat: the same command goes on from the last checkpoint. The result is a numbered
    model of the dataset; --gate judges it against the model in force.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from flows.config import ConfigError, load_config
        from flows.gate import judge
        from flows.report import watching
        from flows.retrain import card_facts, plan_training, run_training

        if start not in ("promoted", "base") or (promote and gate is None):
            raise ConfigError("--start is promoted or base, and --promote needs a --gate to judge by")
        run = load_config(recipe, config, set or [])
        with console.live_watcher() as watcher, watching(watcher):
            job = plan_training(dataset, generation, run, gate=gate, start=start)
            card = run_training(job, run, workers=workers)
            decision = judge(dataset, card.number, run, *gate, promote=promote) if gate else None
        if json:
            console.print_json({**card_facts(card), "decision": decision})
            return
        curve = card.trained["curve"]
        console.out.print(f"[green]Done[/green]: model {card.number}, from generation {job.generation}")
        console.print_pairs(
            [
                ("weights", card.weights.name),
                ("steps", curve[-1]["step"] if curve else 0),
                ("images seen", card.trained["images_seen"]),
                ("loss, first and last", " ".join(f"{row['loss']:.3f}" for row in (curve[:1] + curve[-1:]))),
                *((f"masks left out: {why}", n) for why, n in card.trained["masks_left_out"].items() if n),
                *([("gate", decision["why"])] if decision else []),
            ]
        )
        quoted = shlex.quote(dataset)
        console.next_steps(
            [(f"maskmill promote {quoted} --to {card.number}", "let the next generation use it")]
        )
