"""`maskmill prove`: your weights on your pictures, our masks and pace beside the family's own code."""

from __future__ import annotations

import dataclasses
import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskmill.flows.commands.options import ConfigFile, Debug, Json, Recipe, Sets, file_to_write
from maskmill.flows.report import console

if TYPE_CHECKING:
    from maskmill.flows.config import RunConfig
    from maskmill.workers.jobs.prove import Proof, Side


def prove(
    images: Annotated[
        list[str],
        typer.Option("--images", "-i", help="Pictures, as `generate` takes --input.", metavar="IMAGES"),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            "-w",
            help="A path, hub id, or word of `maskmill fetch`; by default the recipe's.",
            metavar="WEIGHTS",
        ),
    ] = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set: Sets = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many pictures to run.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Draws which pictures.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the whole result as JSON here, to keep or send.",
            callback=file_to_write,
            dir_okay=False,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Prove a model on this machine: the same masks as its authors' code, and how much sooner.

    Exit code 1: the masks are not the same.
    """
    with console.clear_errors(debug=debug):
        from maskmill.flows.config import load_config
        from maskmill.workers.jobs.prove import prove as run_both

        pairs = [*(set or []), *([f"segmenter.weights={weights}"] if weights is not None else [])]
        run = load_config(recipe, config, pairs)
        with console.live_watcher(quiet=json) as watcher:
            if not json:
                watcher.step("annotating by both sides", "image")
            proof = run_both(
                images,
                ingest=run.ingest,
                masks=run.masks,
                segmenter=run.segmenter,
                words=_with_words(run),
                num_images=count,
                seed=seed,
                progress=watcher.count if not json else lambda done, total: None,
            )
        fields = as_json(proof)
        if out is not None:
            out.write_text(json_module.dumps(fields, indent=2) + "\n", encoding="utf-8")
        if json:
            console.print_json(fields)
        else:
            _show(proof, out)
        console.exit_unless(proof.is_same is not False)


def as_json(proof: Proof) -> dict[str, Any]:
    """A proof as one JSON document, with what follows from its numbers."""
    found = dataclasses.asdict(proof)
    if proof.pairing is not None:
        found["pairing"] |= {
            "min_iou": proof.pairing.min_iou,
            "pairs_equal": proof.pairing.pairs_equal,
            "farthest_from_threshold": proof.pairing.farthest_from_threshold,
        }
    return {"same": proof.is_same, **found}


def _with_words(run: RunConfig) -> Any:
    """The run's spec where it has models of words; None where none is set."""
    if not (run.captions.model or run.labels.model or run.names.model):
        return None
    import tempfile

    from maskmill.workers.run.spec import make_spec

    with tempfile.TemporaryDirectory(prefix="maskmill-prove-") as folder:
        return make_spec(folder, work=run.run.work(), **run.column_sections())


def _show(proof: Proof, out: Path | None) -> None:
    sides = [one for one in (proof.ours, proof.theirs) if one is not None]
    console.print_table(("", "images/s", "seconds an image", "memory", "GPU busy"), map(_row, sides))
    pairing = proof.pairing
    lines = []
    if pairing is None:
        lines.append(("beside", f"nobody: {proof.no_peer}"))
    else:
        pairs = len(pairing.pair_ious)
        worst = f", the worst pair's IoU {pairing.min_iou:.6f}" if pairing.min_iou is not None else ""
        lines += [
            ("speed", f"{proof.speedup:g} times, median of {len(proof.pictures)} pictures"),
            ("masks", f"{pairing.masks_ours} ours, {pairing.masks_reference} theirs"),
            ("pairs", f"{pairing.pairs_equal} of {pairs} equal, {pairing.boxes_equal} boxes equal{worst}"),
        ]
        alone = len(pairing.only_ours) + len(pairing.only_reference)
        if alone:
            far = pairing.farthest_from_threshold
            lines.append(("on one side alone", f"{alone}, at most {far:g} from a threshold"))
    lines += [(name, f"{pace:g} images/s") for name, pace in proof.words_per_s.items()]
    lines.append(("machine", ", ".join(f"{name} {value}" for name, value in proof.machine.items())))
    console.print_pairs(lines, title=_verdict(proof))
    for skipped in proof.skipped:
        console.note(f"not run: {skipped}")
    if out is not None:
        console.out.print(console.plain(f"all of it: {out}"))


def _verdict(proof: Proof) -> str:
    if proof.is_same is None:
        return "Timed alone"
    return "The same masks" if proof.is_same else "NOT the same masks"


def _row(side: Side) -> tuple[str, ...]:
    return (
        f"{side.name} ({side.dtype})",
        f"{side.images_per_s:.3g}",
        f"{1 / side.images_per_s:.3g}",
        f"{side.peak_bytes / 1e9:.2f} GB" if side.peak_bytes is not None else "unknown",
        f"{side.gpu_busy:.0%}" if side.gpu_busy is not None else "no GPU",
    )
