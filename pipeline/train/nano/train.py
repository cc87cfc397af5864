"""Train a student: `python -m maskmill.pipeline.train.nano.train --out DIR --minutes M [--resume]
[--start-from FILE] [--photos COCO IMAGES]`.

One loop for any device, a process each: on CPU cores one single-threaded process a core, on GPUs one
process a GPU beside workers that draw ahead. Each process takes its own steps on its own pictures, and
every few seconds the weights are averaged over gloo (local SGD), so a core that others use slows nobody
down. (Two processes of one thread beat one of two: no barrier inside every operator, and drawing pictures
is shared too.) The clock drives everything: pictures grow as the minutes pass, and the learning rate warms
up, stays, and falls to zero at the end. By the wall's clock a run can be told when to end, whatever else
the machine does; by the CPU's (`--cpu-clock`) it takes as many steps on a busy machine. A run goes on on
another device: checkpoints are the CPU's.

What it begins from is begin.py's; a pretrained trunk is frozen for the first steps.

DIR gets `start.safetensors` and `photographs.pt` (made once), `checkpoint.pt` (model, average, optimisers,
step, minutes; replaced atomically), `stable.pt` (the last one before the learning rate fell: go on from
there with more minutes), `student.safetensors` (the averaged weights) and `log.jsonl`. Predicted IoU is
calibrated after it, by `maskmill.pipeline.train.nano.calibrate`.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.distributed as dist
from segment_anything.modeling import Sam
from torch import nn
from torch.multiprocessing.spawn import spawn

from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.segmenters.student import StudentConfig, load_student, stored_config
from maskmill.pipeline.train.nano.begin import check_the_same, prepare
from maskmill.pipeline.train.nano.draw_prompts import PromptConfig, draw_prompts
from maskmill.pipeline.train.nano.keeper import Keeper, State, fresh_state, load_state
from maskmill.pipeline.train.nano.pictures.feed import Feed, FeedConfig, Stream
from maskmill.pipeline.train.nano.pictures.photo_crops import PhotoStore
from maskmill.pipeline.train.nano.pictures.photographs import kept_photographs, read_photographs
from maskmill.pipeline.train.nano.step import StepConfig, training_step

NANO = StudentConfig(encoder="efficientnet_lite0", iou_knots=17)
GPU_BATCH = 32


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        minutes: budget of the whole schedule, earlier runs of it included.
        cpu_clock: minutes are CPU time of the first process, not the wall's.
        processes: single-threaded processes, or GPUs.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        average_seconds: time between two averagings of the processes' weights.
        feed: what batches are mixed of.
        prompts: what first prompts are like.
        lr: highest learning rate.
        trunk_lr: of it, a pretrained trunk's share.
        freeze_steps: steps in which a pretrained trunk stands still.
        decay_share: share of the time, at the end, in which the learning rate falls to zero.
        warmup_steps: steps over which a learning rate rises, the trunk's after its freezing.
        correction_share: share of steps with corrections.
        most_corrections: clicks after the first prompt, at most; as likely as any fewer.
        sizes: pairs of the share of the time from which, and the picture side, pixels.
        ema: decay of the averaged weights, a step.
        eval_minutes: minutes between measurements.
        bfloat16: autocast.
        eval_scenes: held-back scenes a measurement looks at.
    """

    minutes: float
    cpu_clock: bool = False
    processes: int = 2
    device: str = "auto"
    average_seconds: float = 8.0
    feed: FeedConfig = field(default_factory=FeedConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    lr: float = 7e-4
    trunk_lr: float = 0.2
    freeze_steps: int = 120
    decay_share: float = 0.25
    warmup_steps: int = 80
    correction_share: float = 0.45
    most_corrections: int = 8
    sizes: tuple[tuple[float, int], ...] = ((0.0, 256), (0.85, 320))
    ema: float = 0.998
    eval_minutes: float = 10.0
    bfloat16: bool = True
    eval_scenes: int = 32

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.processes < 1:
            raise ValueError(f"minutes {self.minutes}, processes {self.processes}: all above 0")
        if not 0 < self.decay_share <= 1 or not 0 <= self.ema < 1:
            raise ValueError(f"decay_share {self.decay_share}, ema {self.ema}: use shares of 1")
        if self.most_corrections < 1 or not 0 <= self.correction_share <= 1:
            raise ValueError(
                f"most_corrections {self.most_corrections}, correction_share {self.correction_share}: "
                "use 1 or more, and a share of 1"
            )


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Warm up by steps, stay, then fall like 1 - sqrt to zero over the last `decay_share` of the time."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    left = max(0.0, 1.0 - progress)
    falling: float = 1.0 if left >= config.decay_share else 1.0 - (1.0 - left / config.decay_share) ** 0.5
    return config.lr * warm * falling


def trunk_rate(config: TrainConfig, step: int, progress: float) -> float:
    """A pretrained trunk's learning rate: none while it is frozen, then warmed up in its turn."""
    if step < config.freeze_steps:
        return 0.0
    return config.trunk_lr * learning_rate(config, step - config.freeze_steps, progress)


def picture_size(config: TrainConfig, progress: float) -> int:
    """The side of training pictures at a share of the time."""
    return [size for start, size in config.sizes if progress >= start][-1]


@torch.no_grad()
def _average_weights(model: nn.Module, steps: int, seconds: float, processes: int) -> float:
    """Average the weights over the processes by the steps each has done since last time.

    Gives the first process's clock: what all decide together, they decide by it.
    """
    if processes == 1:
        return seconds
    clock = torch.tensor([float(steps), seconds if dist.get_rank() == 0 else 0.0])
    flat = torch.cat([*(p.flatten().cpu() * float(steps) for p in model.parameters()), clock])
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


def _one_step(state: State, config: TrainConfig, feed: Feed, generator: torch.Generator) -> dict[str, float]:
    """Draw, decode, descend; gives what to log."""
    progress = state.seconds / (60 * config.minutes)
    side, rate = picture_size(config, progress), learning_rate(config, state.step, progress)
    slow = trunk_rate(config, state.step, progress)

    pictures = feed.take(side)
    prompts = draw_prompts(pictures, config.prompts, generator)
    drawn = torch.rand(2, generator=generator, device=generator.device).tolist()
    clicks = 1 + int(drawn[1] * config.most_corrections) if drawn[0] < config.correction_share else 0

    how = StepConfig(clicks, config.bfloat16, freeze_trunk=slow == 0.0)
    result = training_step(state.sam, pictures, prompts, generator, how, state.heads)
    state.optimisers.descend(result.loss, rate, slow)
    state.step += 1

    return {
        "loss": float(result.loss.detach()),
        "best": result.best_iou,
        "box": result.box_iou,
        "iou_error": result.iou_error,
        "corrected": result.corrected_iou,
        "dense": result.dense_loss,
        "lr": rate,
        "side": side,
    }


def _device(config: TrainConfig, rank: int) -> torch.device:
    """A process's device: the CPU, or a GPU of its own."""
    device = choose_device(config.device)
    if device.type != "cuda":
        return device
    if config.processes > torch.cuda.device_count():
        raise ValueError(
            f"processes {config.processes}: this machine has {torch.cuda.device_count()} GPUs, one a process"
        )
    return torch.device("cuda", rank)


def _feed(config: TrainConfig, out: Path, rank: int, step: int, generator: torch.Generator) -> Feed:
    """A process's pictures, from photographs kept in `out`."""
    regions, segmented = kept_photographs(out / "photographs.pt")
    device = generator.device
    people = PhotoStore(segmented, device) if segmented else None
    stream = Stream(rank, config.processes, step * config.feed.batch * config.processes)
    return Feed(config.feed, PhotoStore(regions, device), people, stream, generator)


def _run(rank: int, config: TrainConfig, student: StudentConfig, out: Path, resume: bool) -> None:
    device = _device(config, rank)
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(device)
    if config.processes > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{out.absolute()}/rendezvous", rank=rank, world_size=config.processes
        )

    # Where it begins, or goes on
    state = fresh_state(load_student(out / "start.safetensors").to(device))
    if resume and (out / "checkpoint.pt").is_file():
        load_state(state, out / "checkpoint.pt")
    generator = torch.Generator(device).manual_seed(1000 * state.step + rank)
    feed = _feed(config, out, rank, state.step, generator)

    # What is kept, and until when
    clock = time.process_time if config.cpu_clock else time.monotonic
    earlier, begun = state.seconds, clock()
    falls_at = 60 * config.minutes * (1 - config.decay_share)
    keeper = Keeper(out, student, falls_at, config.eval_minutes, config.eval_scenes, state.seconds)

    # Own steps, then the average of all
    while state.seconds < 60 * config.minutes:
        until, first = state.seconds + config.average_seconds, state.step
        while state.seconds < until or state.step == first:
            keeper.note(_one_step(state, config, feed, generator))
            state.seconds = earlier + clock() - begun
        both = nn.ModuleList([state.sam, state.heads])
        state.seconds = _average_weights(both, state.step - first, state.seconds, config.processes)
        if rank == 0:
            decay = config.ema ** (config.processes * (state.step - first))
            _follow(state.average, state.sam, min(decay, 1 - 1 / (1 + state.step / 50)))
            keeper.look_after(state)

    if rank == 0:
        keeper.finish(state)
    if config.processes > 1:
        dist.destroy_process_group()


def train(
    config: TrainConfig,
    student: StudentConfig,
    out: Path,
    *,
    resume: bool = False,
    start_from: Path | None = None,
    photos: list[Truth] | None = None,
) -> None:
    """Train a student.

    Args:
        config: the run.
        student: its shape.
        out: folder for checkpoints, weights and the log.
        resume: go on from `out/checkpoint.pt`, on its clock, if there is one.
        start_from: a student's weights to begin from, on a fresh clock.
        photos: photographs with people's masks; those held apart are left out.

    Raises:
        ValueError: a device that this machine lacks, more processes than it has GPUs, or a folder that was
            begun with other photographs.
    """
    _device(config, 0)
    out.mkdir(parents=True, exist_ok=True)
    (out / "rendezvous").unlink(missing_ok=True)
    if not (resume and (out / "start.safetensors").is_file()):
        prepare(student, out, start_from, photos or [])
    elif photos is not None:
        check_the_same(out / "photographs.pt", photos)
    student = stored_config(out / "start.safetensors")
    arguments = (config, student, out, resume)
    if config.processes == 1:
        _run(0, *arguments)
    else:
        spawn(_run, args=arguments, nprocs=config.processes)  # type: ignore[no-untyped-call]


def _feed_beside_gpus(gpus: int) -> FeedConfig:
    """Larger batches, and every core but a GPU's own draws ahead."""
    return FeedConfig(batch=GPU_BATCH, workers=max(1, len(os.sched_getaffinity(0)) // gpus - 1))


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
    parser.add_argument("--processes", type=int, help="single-threaded processes (2), or GPUs (all)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--workers", type=int, help="that draw scenes ahead, a GPU (its share of the cores)")
    parser.add_argument("--resume", action="store_true", help="go on from DIR/checkpoint.pt, if there")
    parser.add_argument("--start-from", type=Path, help="begin from a student's weights")
    parser.add_argument(
        "--photos", type=Path, nargs=2, metavar=("COCO", "IMAGES"), help="photographs with segments"
    )
    given = parser.parse_args()

    # What this machine has decides the rest
    try:
        on_gpu = choose_device(given.device).type == "cuda"
    except ValueError as exc:
        parser.error(str(exc))
    processes = given.processes or (torch.cuda.device_count() if on_gpu else 2)
    feed = _feed_beside_gpus(processes) if on_gpu else FeedConfig()
    if given.workers is not None:
        feed = replace(feed, workers=given.workers)
    config = TrainConfig(given.minutes, given.cpu_clock, processes, given.device, feed=feed)
    photos = read_photographs(*given.photos) if given.photos else None
    train(config, NANO, given.out, resume=given.resume, start_from=given.start_from, photos=photos)


if __name__ == "__main__":
    main()
