"""How much of full supervision a loop with a little human work reaches, on microscopy images that nano never
saw: `python -m benchmarks.nuclei FOLDER --out DIR [--rounds 3] [--steps 300] [--reviewed 12] [--images 120]
[--supervised-steps 300]`.

FOLDER has images/, instances_pool.json and instances_val.json (COCO). Measured by centre-point mIoU on val:

    before       nano as shipped
    supervised   nano trained on the truth of all pool images
    the loop     the oracle annotates 12 images by clicks; the others keep automatic masks; retrain, gate,
                 promote, annotate again

A third of val is the gate set; the figures are of the other two thirds. The training takes 8 masks x 3 rounds
an image (SAM's is 64 x 11) so that two cores can do it. Each round goes on from the model in force, so the
loop takes --rounds times the steps of one training: --supervised-steps gives full supervision more of them
too. Prints JSON; the loop's own report is in DIR/loop. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.loop_parts import figures, of_model, part_of, pool_folder, with_truth
from maskmill.flows.config import load_config
from maskmill.flows.runs.improve.loop import LoopPlan, run_loop
from maskmill.flows.runs.improve.retrain import plan_training, run_training
from maskmill.workers.foreign.truth import TruthSet

FIGURE = "points_1_chosen_miou"


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="images/, instances_pool.json, instances_val.json")
    parser.add_argument("--out", type=Path, required=True, help="datasets and reports; the run goes on there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="training steps of a round")
    parser.add_argument("--supervised-steps", type=int, help="of full supervision; --steps if left out")
    parser.add_argument("--reviewed", type=int, default=12, help="images that the oracle annotates")
    parser.add_argument("--images", type=int, default=120, help="pool images to use")
    parser.add_argument("--val", type=int, default=40, help="val images to use")
    parser.add_argument("--set", action="append", default=[], help="section.field=value, over the script's")
    given = parser.parse_args()
    sets = [
        f"retrain.steps={given.steps}", "retrain.masks=8", "retrain.points=1", "retrain.bare_rounds=1",
        "retrain.batch=4", "retrain.lr=2e-4", "retrain.weight_decay=0.05", f"loop.reviewed={given.reviewed}",
        "evaluate.measures=points", "evaluate.clicks=1", "masks.points_per_side=32",
        "masks.min_area_px=10", "run.shard_size=30", *given.set,
    ]  # fmt: skip
    config = load_config("nano", sets=sets)
    images, out = given.folder / "images", given.out
    pool = part_of(given.folder / "instances_pool.json", out / "pool.json", lambda i: i < given.images)
    val = given.folder / "instances_val.json"
    gate = part_of(val, out / "gate.json", lambda i: i % 3 == 0 and i < given.val)
    test = part_of(val, out / "test.json", lambda i: i % 3 != 0 and i < given.val)
    inputs = [str(pool_folder(pool, images, out / "pool.txt"))]
    began = time.monotonic()

    before = figures(config.segmenter, test, images, config)
    full = str(out / "supervised")
    with_truth(full, inputs, TruthSet("pool", pool, images), config)
    taught = config.model_copy(
        update={"retrain": replace(config.retrain, steps=given.supervised_steps or given.steps)}
    )
    card = run_training(plan_training(full, None, taught, gate=(gate, images), start="base"), taught)
    supervised = figures(of_model(full, card.number, config.segmenter), test, images, config)

    looped = str(out / "looped")
    plan = LoopPlan(
        dataset=looped,
        inputs=tuple(inputs),
        rounds=given.rounds,
        gate=(gate, images),
        truth=(pool, images),
    )
    report = run_loop(plan, config, out=out / "loop")
    rounds = [
        {
            "model": one["model"],
            "passed": one["passed"],
            "why": one["why"],
            "review": one["review"],
            **figures(of_model(looped, one["model"], config.segmenter), test, images, config),
        }
        for one in report.rounds
    ]
    last = figures(config.segmenter, test, images, config, dataset=looped)
    both = (("supervised", supervised), ("loop", last))
    gain = {name: {kind: found[name] - before[name] for kind, found in both} for name in before}
    result = {
        "before": before,
        "supervised": supervised,
        "rounds": rounds,
        "in_force": last,
        "share_of_supervised_gain": {n: g["loop"] / g["supervised"] if g["supervised"] else None
                                     for n, g in gain.items()},
        "settings": {"retrain": asdict(config.retrain), "loop": asdict(config.loop),
                     "supervised_steps": taught.retrain.steps},
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    (out / "nuclei.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
