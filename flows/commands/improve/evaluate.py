"""`maskmill evaluate` and `maskmill promote`: how good a model or a generation is, which model is next."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from maskmill.flows.commands.options import (
    ConfigFile,
    Dataset,
    Debug,
    Json,
    Recipe,
    Sets,
    folder_to_write,
    two_folders,
)
from maskmill.flows.report import console
from maskmill.flows.report.words import listed, moment

Model = Annotated[
    str | None,
    typer.Option(
        "--segmenter", help="A model (nano, vit_b, ...), MODEL=WEIGHTS, or promoted.", metavar="MODEL"
    ),
]
Coco = Annotated[Path | None, typer.Option(help="Ground truth: COCO's or LVIS's JSON.", dir_okay=False)]
Images = Annotated[Path | None, typer.Option(help="The folder of its pictures.", file_okay=False)]
Boxes = Annotated[
    Path | None, typer.Option(help="A detector's boxes, as COCO results, for AP.", dir_okay=False)
]
Suite = Annotated[Path | None, typer.Option(help="A manifest (TOML) of sets.", dir_okay=False)]
Bsds = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        help="Edges: a folder of pictures, and one of .mat files.",
        callback=two_folders,
        metavar="IMAGES TRUTH",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Write JSON, curves and the worst answers here.", callback=folder_to_write, file_okay=False
    ),
]
Audited = Annotated[
    str, typer.Option(help="For --audit: only pictures of this set, such as random ones.", metavar="SET")
]


def evaluate(
    dataset: Annotated[
        str | None, typer.Argument(help="A dataset, for its promoted model, --audit or --agree.")
    ] = None,
    segmenter: Model = None,
    coco: Coco = None,
    images: Images = None,
    boxes: Boxes = None,
    suite: Suite = None,
    scenes: Annotated[int, typer.Option(min=0, help="Generated scenes to measure on.")] = 0,
    bsds: Bsds = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Hold DATASET's masks against --coco, or its reviews.")
    ] = False,
    text: Annotated[
        bool, typer.Option("--text", help="Hold DATASET's labels against --coco: text to mask.")
    ] = False,
    agree: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Hold two generations of DATASET against each other.", metavar="N M"),
    ] = None,
    only: Audited = "",
    generation: Annotated[
        int | None,
        typer.Option("--generation", "-g", min=1, help="For --audit and --text; the latest by default."),
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a segmenter, or a generation.

    Points, boxes, proposals and edges against ground truth; --set evaluate.FIELD=VALUE says which
    of these.
    """
    with console.clear_errors(debug=debug):
        from maskmill.flows.config import load_config
        from maskmill.flows.runs.improve import evaluate as runs

        run = load_config(recipe, config, set or [])
        question = runs.Question(
            segmenter=segmenter,
            coco=coco,
            images=images,
            boxes=boxes,
            suite=suite,
            scenes=scenes,
            bsds=bsds,
            dataset=dataset,
            generation=generation,
            agree=agree,
            audit=audit,
            only=only,
            text=text,
            out=out,
        )
        with console.watched():
            found = runs.evaluate(question, run)
        if json:
            console.print_json(found)
        else:
            _show(found)


def _show(found: dict[str, Any]) -> None:
    from maskmill.flows.runs.improve.evaluate import figure_lines

    sets = found.get("sets", {})
    console.print_pairs(figure_lines(found), title="all sets" if len(sets) > 1 else None)
    if len(sets) > 1:
        for name, figures in sets.items():
            console.print_pairs(figure_lines(figures), title=name)
    for name, figures in found.get("edges", {}).items():
        console.print_pairs(figure_lines(figures), title=f"edges: {name}")
    if left_out := found.get("left_out"):
        console.note(f"annotations of the truth that are no true masks were left out: {listed(left_out)}")
    for path in found.get("files", ()):
        console.out.print(f"wrote {console.plain(path)}")


def promote(
    dataset: Dataset,
    to: Annotated[
        int | None, typer.Option("--to", min=0, help="The model to put in force; 0 is the shipped one.")
    ] = None,
    why: Annotated[str, typer.Option(help="Why; kept with the promotion.")] = "by hand",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which model the next generation uses, or list the models.

    Promotions are numbered and never overwritten: going back is one more.
    """
    with console.clear_errors(debug=debug):
        from maskmill.flows.runs import marks
        from maskmill.storage.dataset.model_versions import list_models, promoted, promotions
        from maskmill.storage.plan.plan import planned
        from maskmill.storage.stores.open import open_store

        if to is not None:
            marks.promote(dataset, to, why=why)
        store = open_store(dataset)
        planned(store)
        now = promoted(store)
        facts = {
            "promoted": now.model if now else None,
            "promotions": [dataclasses.asdict(one) for one in promotions(store)],
            "models": [dataclasses.asdict(card) for card in list_models(store)],
        }
        if json:
            console.print_json(facts)
            return
        _show_models(facts, dataset)


def _show_models(facts: dict[str, Any], dataset: str) -> None:
    if not facts["models"]:
        console.out.print("no model is kept in this dataset yet")
        console.next_steps(
            [(f"maskmill retrain {shlex.quote(dataset)}", "train one on its latest generation")]
        )
        return
    rows = []
    for card in facts["models"]:
        decided = card["decisions"][-1]["why"] if card["decisions"] else "not gated"
        mark = "in force" if card["number"] == facts["promoted"] else ""
        rows.append((str(card["number"]), card["model"], moment(card["created_utc"]), mark, decided))
    console.print_table(("model", "kind", "made", "", "gate"), rows)
    if facts["promoted"] in (None, 0):
        console.out.print("in force: the model that a run's settings name")
