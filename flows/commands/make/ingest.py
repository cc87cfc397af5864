"""`maskmill ingest`: take images in on machines without a GPU, to be annotated later."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

from maskmill.flows.commands.options import (
    ConfigFile,
    Dataset,
    Debug,
    Inputs,
    Json,
    Limit,
    RayAddress,
    Recipe,
    Sets,
    Workers,
    run_sets,
)
from maskmill.flows.report import console
from maskmill.flows.report.words import count, duration

if TYPE_CHECKING:
    from maskmill.flows.runs.ingest import IngestReport


def ingest(
    dataset: Dataset,
    input: Inputs,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    limit: Limit = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take images in without annotating them.

    They are planned, checked, normalised and stored. Needs no GPU and no model. `generate` does it too; ahead
    of it, on cheaper machines, a GPU need not wait for decoding and scaling. Give it the settings that
    generate will have. Safe to stop and to repeat. With --set embeddings.keep=float16 it embeds them too, for
    people who begin on empty pictures (`maskmill browse`).
    """
    with console.clear_errors(debug=debug, resume=console.command_line()):
        from maskmill.flows.config import load_config
        from maskmill.flows.runs import ingest as runs

        run = load_config(recipe, config, run_sets(set, workers, ray_address))
        with console.watched():
            report = runs.ingest(dataset, input, run, limit=limit)
        if json:
            console.print_json(dataclasses.asdict(report))
        else:
            _show(report, input)
        console.exit_unless(not report.failed_shards)


def _show(report: IngestReport, inputs: list[str]) -> None:
    from maskmill.workers.run.reject_reasons import explained

    console.print_pairs(
        [
            ("images", f"{report.images:,} in {count(report.shards, 'shard')}"),
            ("looked at now", f"{report.new_images:,}"),
            *((f"  left out: {reason}", number) for reason, number in report.rejects.items()),
            ("took", duration(report.seconds)),
        ],
        title=report.dataset,
    )
    for sentence in explained(report.rejects):
        console.note(sentence)
    for shard, reason in report.failed_shards.items():
        console.note(f"shard {shard} is not taken in: {reason}")
    words = ["maskmill", "generate", report.dataset]
    words += [word for name in inputs for word in ("--input", name)]
    steps = [(shlex.join(words), "annotate them")]
    look = ["maskmill", "show", report.dataset, "1", "--picture", "1.png"]
    steps.append((shlex.join(look), "look at the first"))
    if report.generation is not None:
        steps.append((shlex.join(["maskmill", "browse", report.dataset, "--review"]), "click masks yourself"))
    console.next_steps(steps)
