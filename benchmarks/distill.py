"""Does prompting inside the loop help a student? `python -m benchmarks.distill --out DIR [--scenes 200]
[--steps 600] [--held-back 100] [--student tiny] [--teacher nano]`.

One student learns the teacher's embedding for all steps; another for half of them, then with prompts in the
loop for the other half: as many steps, the same pictures, the same start. Both are asked one centre point and
one box a mask on held-back scenes. Prints JSON; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.loop_parts import figures, of_model, with_truth, write_scenes
from maskmill.flows.config import load_config
from maskmill.flows.runs.improve.distill import run_distillation
from maskmill.flows.runs.improve.evaluate import named
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.workers.foreign.truth import TruthSet


def main() -> None:
    """Read the command line, distil twice, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="datasets; the run goes on there")
    parser.add_argument("--scenes", type=int, default=200, help="scenes to learn from")
    parser.add_argument("--steps", type=int, default=600, help="of each student")
    parser.add_argument("--held-back", type=int, default=100, help="scenes to measure on")
    parser.add_argument("--student", default="tiny")
    parser.add_argument("--teacher", default="nano", help="MODEL or MODEL=WEIGHTS")
    parser.add_argument("--size", type=int, default=256, help="side of a scene, px")
    given = parser.parse_args()
    out: Path = given.out
    asked = ["evaluate.measures=points,boxes", "evaluate.clicks=1", "run.shard_size=50"]
    base = load_config("nano", sets=asked)
    teacher = named(given.teacher, base.segmenter)
    first = HELD_BACK_SEED + 100_000
    truth = write_scenes(out / "scenes", range(first, first + given.scenes), given.size)
    held_back = write_scenes(
        out / "held_back", range(HELD_BACK_SEED, HELD_BACK_SEED + given.held_back), given.size
    )
    dataset = str(out / "dataset")
    began = time.monotonic()
    with_truth(dataset, [str(out / "scenes")], TruthSet("scenes", truth, out / "scenes"), base)
    result = {"teacher": figures(teacher, held_back, out / "held_back", base)}
    for name, encoder in (("encoder only", given.steps), ("prompts in the loop", given.steps // 2)):
        config = load_config("nano", sets=["distill.batch=4", f"distill.encoder_steps={encoder}",
                                           f"distill.prompt_steps={given.steps - encoder}"])  # fmt: skip
        config = config.model_copy(update={"segmenter": teacher})
        card = run_distillation(dataset, None, config, given.student)
        student = of_model(dataset, card.number, base.segmenter)
        result[name] = figures(student, held_back, out / "held_back", base)
    text = json.dumps({**result, "seconds": round(time.monotonic() - began)}, indent=1)
    (out / "distill.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
