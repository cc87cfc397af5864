"""Train a student from scratch or on from a checkpoint.

`python -m maskmill.pipeline.train.nano.train --out DIR --minutes M [--resume]`

Runs on CPU cores, one single-threaded process a core: each draws its own samples and takes its own steps,
and every few seconds the weights are averaged over gloo (local SGD), so a core that others use slows nobody
down. (Two processes of one thread beat one of two: no barrier inside every operator, and drawing samples is
shared too.) The clock drives everything: pictures grow from 128 to 320 px as the minutes pass, and the
learning rate warms up, stays, and falls to zero at the end. By the wall's clock a run can be told when to
end, whatever else the machine does; by the CPU's (`--cpu-clock`) it takes as many steps on a busy machine.

DIR gets `checkpoint.pt` (model, average, optimiser, step, minutes; replaced atomically), `stable.pt` (the
last one before the learning rate fell: go on from there with more minutes), `student.safetensors` (the
averaged weights) and `log.jsonl`.

It doesn't know how to use a GPU or several machines: `workers/` has the trainer for those.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from segment_anything.modeling import Sam
from torch import nn
from torch.multiprocessing.spawn import spawn

from maskmill.pipeline.evaluate.points import held_back_scenes, measure_points
from maskmill.pipeline.segmenters.student import StudentConfig, build_student, load_student, save_student
from maskmill.pipeline.train.nano.calibrate import calibrate_iou, calibration_samples
from maskmill.pipeline.train.nano.dense import DenseHeads, dense_heads
from maskmill.pipeline.train.samples import SampleConfig, sample
from maskmill.pipeline.train.step import training_step


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        minutes: budget of the whole schedule, earlier runs of it included.
        cpu_clock: minutes are CPU time of the first process, not the wall's.
        processes: single-threaded processes.
        average_seconds: time between two averagings of the processes' weights.
        batch: pictures a process and step.
        lr: highest learning rate.
        decay_share: share of the time, at the end, in which the learning rate falls to zero.
        warmup_steps: steps over which the learning rate rises.
        second_every: a correction round every so many steps.
        sizes: pairs of the share of the time from which, and the picture side, pixels.
        ema: decay of the averaged weights, a step.
        eval_minutes: minutes between measurements.
        bfloat16: autocast.
        prompts: first prompts a picture.
        photo_share: share of samples cut from photographs.
        eval_scenes: held-back scenes a measurement looks at.
        calibration_samples: pictures to fit the predicted-IoU head to at the end; 0 leaves it.
    """

    minutes: float
    cpu_clock: bool = False
    processes: int = 2
    average_seconds: float = 8.0
    batch: int = 4
    lr: float = 1e-3
    decay_share: float = 0.35
    warmup_steps: int = 100
    second_every: int = 8
    sizes: tuple[tuple[float, int], ...] = ((0.0, 128), (0.2, 192), (0.4, 256), (0.7, 320))
    ema: float = 0.998
    eval_minutes: float = 10.0
    bfloat16: bool = True
    prompts: int = 8
    photo_share: float = 0.25
    eval_scenes: int = 64
    calibration_samples: int = 200

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.processes < 1 or self.batch < 1:
            raise ValueError(
                f"minutes {self.minutes}, processes {self.processes}, batch {self.batch}: all above 0"
            )
        if not 0 < self.decay_share <= 1 or not 0 <= self.ema < 1:
            raise ValueError(f"decay_share {self.decay_share}, ema {self.ema}: use shares of 1")


@dataclass
class _State:
    """What a checkpoint holds."""

    sam: Sam
    average: Sam
    heads: DenseHeads
    optimisers: tuple[torch.optim.Optimizer, ...]
    step: int
    seconds: float


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Warm up by steps, stay, then fall like 1 - sqrt to zero over the last `decay_share` of the time."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    left = max(0.0, 1.0 - progress)
    falling = 1.0 if left >= config.decay_share else 1.0 - float(np.sqrt(1.0 - left / config.decay_share))
    return config.lr * warm * falling


def picture_size(config: TrainConfig, progress: float) -> int:
    """The side of training pictures at a share of the time."""
    return [size for start, size in config.sizes if progress >= start][-1]


def _fresh(student: StudentConfig, start_from: Path | None) -> _State:
    torch.manual_seed(0)
    sam = load_student(start_from) if start_from else build_student(student)
    sam.train()
    heads = dense_heads(sam)
    return _State(sam, copy.deepcopy(sam).eval(), heads, _optimisers(nn.ModuleList([sam, heads])), 0, 0.0)


def _optimisers(model: nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the weights of linear layers, AdamW for the rest.

    Muon's steps are those of AdamW in size (`match_rms_adamw`), so both follow one learning rate. From the
    same weights, at the same wall time, it led AdamW by half a point of IoU though it did 14 % fewer steps.
    """
    linear = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Linear)}
    others = [p for p in model.parameters() if id(p) not in linear]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return (
        torch.optim.Muon(list(linear.values()), lr=0.0, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98)),
    )


def _save(state: _State, path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    torch.save(
        {
            "sam": state.sam.state_dict(),
            "average": state.average.state_dict(),
            "heads": state.heads.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in state.optimisers],
            "step": state.step,
            "seconds": state.seconds,
        },
        partial,
    )
    partial.replace(path)


def _load(state: _State, path: Path) -> None:
    stored = torch.load(path, map_location="cpu", weights_only=True)
    state.sam.load_state_dict(stored["sam"])
    state.average.load_state_dict(stored["average"])
    state.heads.load_state_dict(stored["heads"])
    for optimiser, kept in zip(state.optimisers, stored["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    state.step, state.seconds = int(stored["step"]), float(stored["seconds"])


@torch.no_grad()
def _average_weights(model: nn.Module, steps: int, seconds: float, processes: int) -> float:
    """Average the weights over the processes by the steps each has done since last time.

    Gives the first process's clock: what all decide together, they decide by it.
    """
    if processes == 1:
        return seconds
    clock = torch.tensor([float(steps), seconds if dist.get_rank() == 0 else 0.0])
    flat = torch.cat([*(p.flatten() * float(steps) for p in model.parameters()), clock])
    dist.all_reduce(flat)
    total = flat[-2].clamp(min=1)
    offset = 0
    for parameter in model.parameters():
        parameter.copy_(flat[offset : offset + parameter.numel()].view_as(parameter) / total)
        offset += parameter.numel()
    return float(flat[-1])


@torch.no_grad()
def _follow(average: Sam, sam: Sam, decay: float) -> None:
    for kept, new in zip(average.parameters(), sam.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def _one_step(state: _State, config: TrainConfig, rank: int, generator: torch.Generator) -> dict[str, float]:
    """Draw, decode, descend; gives what to log."""
    progress = state.seconds / (60 * config.minutes)
    wanted = SampleConfig(picture_size(config, progress), config.prompts, config.photo_share)
    place = (state.step // 2 * config.processes + rank) * config.batch
    numbers = [2 * (place + i) + state.step % 2 for i in range(config.batch)]  # two steps share scenes
    samples = [sample(number, wanted) for number in numbers]
    rate = learning_rate(config, state.step, progress)
    for group in (group for optimiser in state.optimisers for group in optimiser.param_groups):
        group["lr"] = rate
    second = state.step % config.second_every == config.second_every - 1
    result = training_step(
        state.sam, samples, generator, second_round=second, bfloat16=config.bfloat16, heads=state.heads
    )
    for optimiser in state.optimisers:
        optimiser.zero_grad(set_to_none=True)
    result.loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.sam.parameters(), 1.0)
    for optimiser in state.optimisers:
        optimiser.step()
    state.step += 1
    return {
        "loss": float(result.loss.detach()),
        "best": result.best_iou,
        "iou_error": result.iou_error,
        "second": result.second_iou,
        "dense": result.dense_loss,
        "lr": rate,
        "size": wanted.size,
    }


def _log(out: Path, record: dict[str, float | int | str]) -> None:
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def _report(state: _State, config: TrainConfig, student: StudentConfig, out: Path) -> None:
    """Export the average and measure it on some held-back scenes."""
    save_student(state.average, student, out / "student.safetensors")
    shown = build_student(student)
    shown.load_state_dict(state.average.state_dict())
    figures = measure_points(shown, held_back_scenes(config.eval_scenes))
    _log(out, {"step": state.step, "minutes": round(state.seconds / 60, 2), **asdict(figures)})


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure over the steps that have it."""
    values = {key: [w[key] for w in window if not np.isnan(w[key])] for key in window[0]}
    return {key: round(float(np.mean(some)), 4) for key, some in values.items() if some}


class _Keeper:
    """Logs, checkpoints and measurements of the first process, each when its time has come."""

    def __init__(self, config: TrainConfig, student: StudentConfig, out: Path, seconds: float) -> None:
        self.config, self.student, self.out = config, student, out
        self.window: list[dict[str, float]] = []
        self.next_log, self.next_save = seconds + 30, seconds + 120
        self.next_eval = seconds + 60 * config.eval_minutes
        self.falls_at = 60 * config.minutes * (1 - config.decay_share)
        self.stable = seconds > self.falls_at

    def note(self, figures: dict[str, float]) -> None:
        """Keep what a step gave, till it is logged."""
        self.window = [*self.window[-999:], figures]

    def look_after(self, state: _State) -> None:
        """Do what has become due."""
        if state.seconds > self.next_log:
            _log(
                self.out, {"step": state.step, "minutes": round(state.seconds / 60, 2), **_means(self.window)}
            )
            self.window.clear()
            self.next_log = state.seconds + 30
        if not self.stable and state.seconds > self.falls_at:
            _save(state, self.out / "stable.pt")
            self.stable = True
        if state.seconds > self.next_save:
            _save(state, self.out / "checkpoint.pt")
            self.next_save = state.seconds + 120
        if state.seconds > self.next_eval:
            _report(state, self.config, self.student, self.out)
            self.next_eval = state.seconds + 60 * self.config.eval_minutes


def _run(
    rank: int, config: TrainConfig, student: StudentConfig, out: Path, resume: bool, start_from: Path | None
) -> None:
    torch.set_num_threads(1)
    if config.processes > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{out.absolute()}/rendezvous", rank=rank, world_size=config.processes
        )
    state = _fresh(student, start_from)
    if resume and (out / "checkpoint.pt").is_file():
        _load(state, out / "checkpoint.pt")
    generator = torch.Generator().manual_seed(1000 * state.step + rank)
    clock = time.process_time if config.cpu_clock else time.monotonic
    earlier, begun = state.seconds, clock()
    keeper = _Keeper(config, student, out, state.seconds)
    while state.seconds < 60 * config.minutes:
        until, first = state.seconds + config.average_seconds, state.step
        while state.seconds < until or state.step == first:
            keeper.note(_one_step(state, config, rank, generator))
            state.seconds = earlier + clock() - begun
        both = nn.ModuleList([state.sam, state.heads])
        state.seconds = _average_weights(both, state.step - first, state.seconds, config.processes)
        if rank == 0:
            decay = config.ema ** (config.processes * (state.step - first))
            _follow(state.average, state.sam, min(decay, 1 - 1 / (1 + state.step / 50)))
            keeper.look_after(state)
    if rank == 0:
        _save(state, out / "checkpoint.pt")
        if config.calibration_samples:
            wanted = SampleConfig(student.image_size, 40, config.photo_share, void_share=0.15)
            calibrate_iou(state.average, calibration_samples(config.calibration_samples, wanted))
        _report(state, config, student, out)
    if config.processes > 1:
        dist.destroy_process_group()


def train(
    config: TrainConfig,
    student: StudentConfig,
    out: Path,
    *,
    resume: bool = False,
    start_from: Path | None = None,
) -> None:
    """Train a student.

    Args:
        config: the run.
        student: its shape.
        out: folder for checkpoints, weights and the log.
        resume: go on from `out/checkpoint.pt`, on its clock, if there is one.
        start_from: a student's weights to begin from, on a fresh clock.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "rendezvous").unlink(missing_ok=True)
    arguments = (config, student, out, resume, start_from)
    if config.processes == 1:
        _run(0, *arguments)
    else:
        spawn(_run, args=arguments, nprocs=config.processes)  # type: ignore[no-untyped-call]


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, weights and the log")
    parser.add_argument("--minutes", type=float, required=True, help="budget of time, earlier runs included")
    parser.add_argument(
        "--cpu-clock", action="store_true", help="minutes of CPU time, not of the wall's clock"
    )
    parser.add_argument("--processes", type=int, default=2, help="single-threaded processes")
    parser.add_argument("--resume", action="store_true", help="go on from DIR/checkpoint.pt, if there")
    parser.add_argument("--start-from", type=Path, help="begin from a student's weights")
    given = parser.parse_args()
    config = TrainConfig(given.minutes, cpu_clock=given.cpu_clock, processes=given.processes)
    train(config, StudentConfig(), given.out, resume=given.resume, start_from=given.start_from)


if __name__ == "__main__":
    main()
