"""What each part of nano's training is worth, by short runs: `python -m benchmarks.nano_ablation --out DIR
--photos COCO IMAGES [--start-from FILE] [--minutes 5] [--side 256] [--scenes 40]`.

One run by the defaults, and one for each thing changed: a trunk of random weights, no photographs with
people's segments nor their regions, smaller and larger pictures. All begin from the same weights otherwise,
and have as many minutes of CPU time in one process, so a busy machine changes nothing. Measured by one click
on the photographs held apart and on held-back scenes. Minutes tell what learns sooner, not what is better
after hours; and `--start-from` an older nano fits the fusion to the pretrained trunk, which a random one
lacks.

DIR keeps each run; a run that is there is only measured.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from maskmill.pipeline.evaluate.points import Pictured, held_back_scenes, measure_points
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.segmenters.efficientnet import Lite0Trunk
from maskmill.pipeline.segmenters.student import load_student, save_student
from maskmill.pipeline.train.nano.begin import prepare
from maskmill.pipeline.train.nano.pictures.photographs import held_apart, read_photographs
from maskmill.pipeline.train.nano.train import NANO, TrainConfig, train


@dataclass(frozen=True)
class Variation:
    """A run: what it changes.

    Attributes:
        name: of its folder and row.
        pretrained: whether the trunk begins with ImageNet's weights.
        photographs: whether photographs with segments are trained on.
        side: of the pictures, px.
    """

    name: str
    pretrained: bool = True
    photographs: bool = True
    side: int = 256


def variations(side: int) -> tuple[Variation, ...]:
    """The runs, the unchanged one first."""
    return (
        Variation("as it is", side=side),
        Variation("random trunk", pretrained=False, side=side),
        Variation("no photographs", photographs=False, side=side),
        Variation(f"{side - 64} px", side=side - 64),
        Variation(f"{side + 64} px", side=side + 64),
    )


def _random_trunk() -> Lite0Trunk:
    """He's initialisation: without norms, torch's own would fade over fifty layers."""
    trunk = Lite0Trunk()
    for convolution in trunk.convolutions():
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
    return trunk


def begin(one: Variation, out: Path, start_from: Path | None, photos: list[Truth]) -> Path:
    """A run's folder with its first weights and its photographs, which are partitioned once."""
    kept, run = out / ("with" if one.photographs else "without"), out / one.name.replace(" ", "-")
    if not (kept / "start.safetensors").is_file():
        kept.mkdir(parents=True, exist_ok=True)
        prepare(NANO, kept, start_from, photos if one.photographs else [])
    run.mkdir(exist_ok=True)
    for name in ("start.safetensors", "photographs.pt"):
        shutil.copy(kept / name, run / name)
    if not one.pretrained:
        sam = load_student(run / "start.safetensors")
        torch.manual_seed(0)
        sam.image_encoder.trunk = _random_trunk()
        save_student(sam, NANO, run / "start.safetensors")
    return run


def figures(run: Path, pictures: Sequence[Pictured]) -> str:
    """Best of three and chosen, mean IoU."""
    one = measure_points(load_student(run / "student.safetensors"), pictures)
    return f"{one.best_miou:.3f} / {one.chosen_miou:.3f}"


def main() -> None:
    """Read the command line, train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, nargs=2, metavar=("COCO", "IMAGES"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start-from", type=Path, help="a student's weights for all but the trunk")
    parser.add_argument("--minutes", type=float, default=5.0, help="of CPU time, a run")
    parser.add_argument("--side", type=int, default=256, help="of the unchanged run's pictures, px")
    parser.add_argument("--scenes", type=int, default=40)
    given = parser.parse_args()
    photos = read_photographs(*given.photos)
    scenes = list(held_back_scenes(given.scenes))

    print("| run | steps | photographs held apart | scenes |")
    for one in variations(given.side):
        run = given.out / one.name.replace(" ", "-")
        if not (run / "student.safetensors").is_file():
            run = begin(one, given.out, given.start_from, photos)
            config = TrainConfig(
                given.minutes,
                cpu_clock=True,
                processes=1,
                device="cpu",
                sizes=((0.0, one.side),),
                freeze_steps=20 if one.pretrained else 0,
                warmup_steps=20,
                trunk_lr=0.2 if one.pretrained else 1.0,
                eval_scenes=1,
            )
            train(config, NANO, run, resume=True)
        steps = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)["step"]
        apart = figures(run, held_apart(photos))
        print(f"| {one.name} | {steps} | {apart} | {figures(run, scenes)} |", flush=True)


if __name__ == "__main__":
    main()
