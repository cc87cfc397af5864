"""Self-training without any human: generated scenes of another style, annotated by nano, learned from, and
judged by the gate: `python -m benchmarks.self_training --out DIR [--style shifted] [--kinds choosing careful
careless] [--scenes 60] [--gate 48] [--rounds 1] [--steps 100]`.

Three loops on the same pictures, or some of them. The choosing one leaves masks as they are and learns to
choose among them (`retrain.score_steps`). The careful one learns masks gently, from less certain ones too:
certain ones alone are large and leave out the small. The careless one keeps every mask that the grid gives
and learns far too fast. The gate should accept what helps and refuse what harms; all are printed with their
numbers. `further` compares the last round's model, promoted or not, with nano on scenes of that style that
none saw, nor the choice of what these loops do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.loop_parts import LOOKS, of_model, write_scenes
from maskmill.flows.config import load_config
from maskmill.flows.runs.improve.loop import LoopPlan, run_loop
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.workers.measure.gate import compare

COMMON = (
    "retrain.masks=8", "retrain.points=1", "retrain.bare_rounds=1", "retrain.batch=4", "loop.start=promoted",
    "evaluate.measures=points", "evaluate.clicks=1", "run.shard_size=20",
)  # fmt: skip
KINDS = {
    "choosing": ("retrain.steps=0", "retrain.score_steps=400", "retrain.masks=48", "retrain.calibrate=true",
                 "masks.predicted_iou=0.3", "masks.stability=0.2"),
    "careful": ("retrain.lr=5e-5", "masks.predicted_iou=0.45", "masks.stability=0.3"),
    "careless": ("retrain.lr=5e-3", "masks.predicted_iou=0.0", "masks.stability=0.0", "masks.box_nms=0.95",
                 "retrain.clip=none"),
}  # fmt: skip


def main() -> None:
    """Read the command line, run the loops, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="datasets and reports; the run goes on there")
    parser.add_argument("--style", choices=LOOKS, default="shifted", help="of the scenes")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="loops to run")
    parser.add_argument("--scenes", type=int, default=60, help="scenes to annotate and learn from")
    parser.add_argument("--gate", type=int, default=48, help="scenes to judge on, and as many to report")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100, help="training steps of a round")
    parser.add_argument("--size", type=int, default=256, help="side of a scene, px")
    parser.add_argument("--set", action="append", default=[], help="section.field=value, for all loops")
    given = parser.parse_args()
    first = HELD_BACK_SEED + 50_000
    out: Path = given.out
    look = LOOKS[given.style]
    pool = out / "pool"
    write_scenes(pool, range(first, first + given.scenes), given.size, look)
    sets = [first + 10_000, first + 40_000]
    gate, test = (
        write_scenes(out / name, range(start, start + given.gate), given.size, look)
        for name, start in zip(("gate", "test"), sets, strict=True)
    )
    began, result = time.monotonic(), {}
    for kind in given.kinds:
        own = [*COMMON, f"retrain.steps={given.steps}", *KINDS[kind], *given.set]
        config = load_config("nano", sets=own)
        dataset = str(out / kind)
        plan = LoopPlan(dataset=dataset, inputs=(str(pool),), rounds=given.rounds, gate=(gate, out / "gate"))
        report = run_loop(plan, config, out=out / f"{kind}-report")
        last = of_model(dataset, report.rounds[-1]["model"], config.segmenter)
        result[kind] = {
            "further": compare(config.segmenter, last, test, out / "test", config.evaluate, config.gate),
            "rounds": [
                {name: one[name] for name in ("model", "passed", "why", "overall")} for one in report.rounds
            ],
        }
    text = json.dumps({**result, "seconds": round(time.monotonic() - began)}, indent=1)
    (out / "self_training.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
