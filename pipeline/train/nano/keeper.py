"""What a training run keeps: its state, checkpoints, a log and measurements, each when its time has come."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from segment_anything.modeling import Sam

from maskmill.pipeline.evaluate.points import held_back_scenes, measure_points
from maskmill.pipeline.segmenters.student import StudentConfig, save_student
from maskmill.pipeline.train.nano.dense import DenseHeads, dense_heads
from maskmill.pipeline.train.nano.optimisers import Optimisers, optimisers_of

LOG_SECONDS, SAVE_SECONDS = 30.0, 120.0


@dataclass
class State:
    """What a checkpoint holds."""

    sam: Sam
    average: Sam
    heads: DenseHeads
    optimisers: Optimisers
    step: int = 0
    seconds: float = 0.0


def fresh_state(sam: Sam) -> State:
    """A state at the first step, on the student's device."""
    average = copy.deepcopy(sam).eval()
    sam.train()
    heads = dense_heads(sam).to(sam.device)
    return State(sam, average, heads, optimisers_of(sam, heads))


def save_state(state: State, path: Path) -> None:
    """Write a checkpoint through a temporary name."""
    partial = path.with_name(path.name + ".partial")
    torch.save(
        {
            "sam": state.sam.state_dict(),
            "average": state.average.state_dict(),
            "heads": state.heads.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in state.optimisers.each],
            "step": state.step,
            "seconds": state.seconds,
        },
        partial,
    )
    partial.replace(path)


def load_state(state: State, path: Path) -> None:
    """Go on from a checkpoint, whatever device wrote it."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    state.sam.load_state_dict(stored["sam"])
    state.average.load_state_dict(stored["average"])
    state.heads.load_state_dict(stored["heads"])
    for optimiser, kept in zip(state.optimisers.each, stored["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    state.step, state.seconds = int(stored["step"]), float(stored["seconds"])


class Keeper:
    """Logs, checkpoints and measurements of the first process.

    Args:
        out: the run's folder.
        student: the shape of what is trained.
        falls_at: second of the run at which the learning rate begins to fall.
        eval_minutes: between measurements.
        eval_scenes: held-back scenes a measurement looks at.
        seconds: of the run so far.
    """

    def __init__(
        self,
        out: Path,
        student: StudentConfig,
        falls_at: float,
        eval_minutes: float,
        eval_scenes: int,
        seconds: float,
    ) -> None:
        self._out, self._student, self._eval_scenes = out, student, eval_scenes
        self._window: list[dict[str, float]] = []
        self._next_log, self._next_save = seconds + LOG_SECONDS, seconds + SAVE_SECONDS
        self._eval_seconds = 60 * eval_minutes
        self._next_eval = seconds + self._eval_seconds
        self._falls_at, self._stable = falls_at, seconds > falls_at

    def note(self, figures: dict[str, float]) -> None:
        """Keep what a step gave, till it is logged."""
        self._window = [*self._window[-999:], figures]

    def look_after(self, state: State) -> None:
        """Do what has become due."""
        if state.seconds > self._next_log:
            self._log(state, _means(self._window))
            self._window.clear()
            self._next_log = state.seconds + LOG_SECONDS
        if not self._stable and state.seconds > self._falls_at:
            save_state(state, self._out / "stable.pt")
            self._stable = True
        if state.seconds > self._next_save:
            save_state(state, self._out / "checkpoint.pt")
            self._next_save = state.seconds + SAVE_SECONDS
        if state.seconds > self._next_eval:
            self._report(state)
            self._next_eval = state.seconds + self._eval_seconds

    def finish(self, state: State) -> None:
        """The last checkpoint and measurement."""
        save_state(state, self._out / "checkpoint.pt")
        self._report(state)

    def _report(self, state: State) -> None:
        """Export the average and measure it on some held-back scenes."""
        save_student(state.average, self._student, self._out / "student.safetensors")
        self._log(state, asdict(measure_points(state.average, held_back_scenes(self._eval_scenes))))

    def _log(self, state: State, figures: dict[str, float]) -> None:
        record = {"step": state.step, "minutes": round(state.seconds / 60, 2), **figures}
        with (self._out / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure over the steps that have it."""
    values = {key: [w[key] for w in window if not math.isnan(w[key])] for key in window[0]}
    return {key: round(sum(some) / len(some), 4) for key, some in values.items() if some}
