"""`maskmill review`, `retrain`, `distill` and `loop`: better segmenters from the dataset they annotate."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskmill.flows.commands.help import completer, one_of
from maskmill.flows.commands.options import (
    MOST_WORKERS,
    ConfigFile,
    Dataset,
    Debug,
    Inputs,
    Json,
    Only,
    Recipe,
    Sets,
    a_name,
    file_and_folder,
    folder_to_write,
)
from maskmill.flows.report import console
from maskmill.flows.report.words import listed

if TYPE_CHECKING:
    from maskmill.flows.runs.improve.loop import LoopReport
    from maskmill.flows.runs.improve.retrain import Retrained

Gate = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        help="Annotations and pictures that a gate measures on; none may be in DATASET.",
        callback=file_and_folder,
        metavar="COCO IMAGES",
    ),
]
Workers = Annotated[
    int, typer.Option(min=1, max=MOST_WORKERS, help="Training processes; several share each batch by DDP.")
]


def retrain(
    dataset: Dataset,
    generation: Annotated[
        int | None,
        typer.Option("--generation", "-g", min=1, help="What it trains on; the latest by default."),
    ] = None,
    workers: Workers = 1,
    start: Annotated[
        str,
        typer.Option(
            help="From the model in force (promoted), or the one that the settings name (base).",
            **one_of("promoted", "base"),
        ),
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
        from maskmill.flows.config import load_config
        from maskmill.flows.runs.improve import retrain as runs

        run = load_config(recipe, config, set or [])
        with console.watched():
            done = runs.retrain(
                dataset,
                run,
                generation=generation,
                gate=gate,
                promote=promote,
                start=start,
                workers=workers,
            )
        if json:
            console.print_json(done.facts())
        else:
            _show_retrained(dataset, done)


def _show_retrained(dataset: str, done: Retrained) -> None:
    card, curve = done.card, done.card.trained["curve"]
    console.out.print(f"[green]Done[/green]: model {card.number}, from generation {done.generation}")
    console.print_pairs(
        [
            ("weights", card.weights.name),
            ("steps", f"{curve[-1]['step'] if curve else 0:,}"),
            ("images seen", f"{card.trained['images_seen']:,}"),
            ("loss, first and last", " ".join(f"{row['loss']:.3f}" for row in (curve[:1] + curve[-1:]))),
            *((f"masks left out: {why}", n) for why, n in card.trained["masks_left_out"].items() if n),
            *([("gate", done.decision["why"])] if done.decision else []),
        ]
    )
    quoted = shlex.quote(dataset)
    console.next_steps([(f"maskmill promote {quoted} --to {card.number}", "let the next generation use it")])


def loop(
    dataset: Dataset,
    input: Inputs,
    gate: Annotated[
        tuple[Path, Path],
        typer.Option(
            help="Annotations and pictures that rounds are judged on.",
            callback=file_and_folder,
            metavar="COCO IMAGES",
        ),
    ],
    rounds: Annotated[int, typer.Option(min=1, help="How often to annotate, retrain, gate and promote.")] = 3,
    truth: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="What the oracle knows, for loop.reviewed images.",
            callback=file_and_folder,
            metavar="COCO IMAGES",
        ),
    ] = None,
    workers: Workers = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the report and its curve here.", callback=folder_to_write, file_okay=False),
    ] = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Annotate, retrain, gate, promote, and again.

    Safe to stop and to repeat: the same command goes on with the step it was in.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import load_config
        from maskmill.flows.runs.improve import loop as runs

        run = load_config(recipe, config, set or [])
        plan = runs.LoopPlan(dataset=dataset, inputs=tuple(input), rounds=rounds, gate=gate, truth=truth)
        with console.watched():
            report = runs.loop(plan, run, workers=workers, out=out)
        if json:
            console.print_json(dataclasses.asdict(report))
        else:
            _show_rounds(report, run.gate.figure)


def _show_rounds(report: LoopReport, figure: str) -> None:
    rows = [("0", "", "", f"{report.before[figure]:.4f}", "before")]
    for number, one in enumerate(report.rounds, 1):
        clicks = str(one["review"]["clicks"]) if one["review"] else ""
        after = f"{one['after'][figure]:.4f}"
        rows.append((str(number), str(one["model"]), clicks, after, one["why"]))
    console.print_table(("round", "model", "clicks", figure, "gate"), rows)

    console.out.print(f"in force: model {report.promoted}; generation {report.generation}")
    for path in report.files:
        console.out.print(f"wrote {console.plain(path)}")


def distill(
    teacher: Annotated[
        str, typer.Argument(help="nano, vit_b, ..., or MODEL=WEIGHTS; see `maskmill models segmenter`.")
    ],
    student: Annotated[
        str,
        typer.Argument(help="The student's shape: nano or tiny.", autocompletion=completer(("nano", "tiny"))),
    ],
    dataset: Dataset,
    generation: Annotated[
        int | None,
        typer.Option("--generation", "-g", min=1, help="Whose pictures it learns on; the latest by default."),
    ] = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Teach a smaller model what a larger one knows.

    First its encoder alone, then with prompts in the loop. The student becomes a model of DATASET. Safe to
    stop and to repeat.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import load_config
        from maskmill.flows.runs.improve import distill as runs

        run = load_config(recipe, config, set or [])
        with console.watched():
            card = runs.distill(dataset, generation, run, teacher=teacher, student=student)
        if json:
            console.print_json(dataclasses.asdict(card))
            return
        console.out.print(f"[green]Done[/green]: model {card.number}, {student} taught by {teacher}")
        console.print_pairs(
            [("weights", card.weights.name), ("images seen", f"{card.trained['images_seen']:,}")]
        )


def review(
    dataset: Dataset,
    truth: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Masks by people, COCO's JSON, and the folder of their pictures.",
            callback=file_and_folder,
            metavar="COCO IMAGES",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="With --truth: how many images, drawn by loop.seed.")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="The masks as they are given, or what an oracle makes of them, assisted or semi-automatic.",
            **one_of("given", "assisted", "semi"),
        ),
    ] = "given",
    who: Annotated[
        str | None,
        typer.Option(
            help="Who made the masks; this account's name by default.", metavar="NAME", callback=a_name
        ),
    ] = None,
    only: Only = "",
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Put people's masks into the dataset, or an oracle's that clicks as they would.

    Alone, it publishes what people saved since. With --truth it saves what a file holds, or an oracle makes
    of it, first. A save is never overwritten; training weighs reviews most.
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import load_config
        from maskmill.flows.runs.improve import review as runs

        _go_together(truth, images, only)
        pairs = [*(set or []), f"loop.reviewed={images or 0}", f"loop.review_mode={mode}"]
        run = load_config(recipe, config, pairs)
        with console.watched():
            found = runs.review(dataset, truth, run, who=who, only=only)
        if json:
            console.print_json(found)
        else:
            console.print_pairs((name.replace("_", " "), listed(value)) for name, value in found.items())


def _go_together(truth: tuple[Path, Path] | None, images: int | None, only: str) -> None:
    """Raises ConfigError for one without the other."""
    from maskmill.flows.config import ConfigError

    if (truth is None) != (images is None):
        raise ConfigError("--truth and --images go together; without both, what people saved is published")
    if only and truth is None:
        raise ConfigError(
            "--only says which pictures --truth reviews; what people saved is published whole. To review a "
            "set in the page: maskmill browse DATASET --review --only SET"
        )
