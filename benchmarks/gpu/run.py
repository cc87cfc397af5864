"""Everything that a GPU is to be asked, in one go: one JSON and one page.

    benchmarks/gpu/run.sh OUT                     on the GPU; at most five minutes
    python -m benchmarks.gpu.run --out OUT --tiny --device cpu      the rehearsal

Sections follow each other by what would be missed most; each is written when it is done, none begins that
would end too late, and one that fails leaves its traceback and takes no other along.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import words
from benchmarks.gpu import page
from benchmarks.gpu.clock import Book
from benchmarks.gpu.kernels import measure_kernels
from benchmarks.gpu.models import random_sam, random_sam2
from benchmarks.gpu.whole import (
    agreement,
    decoded,
    drawing,
    parts_one_by_one,
    photographs,
    profiled,
    threshold_for,
    whole,
    with_threshold,
)
from maskmill.pipeline.masks.automask import AutomaticMasks, warm_up
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_student
from maskmill.pipeline.settings import FAST, SA1B, MaskSettings
from maskmill.pipeline.weights import weights

SHARES = (0.3, 0.5, 0.8)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is: a GPU's, or the rehearsal's."""

    device: torch.device
    tiny: bool

    @property
    def points(self) -> int:
        """Along a side."""
        return 3 if self.tiny else 32

    def photos(self, count: int) -> list[bytes]:
        """Of the size that SA-1B releases."""
        return photographs(2, 48, 32) if self.tiny else photographs(count, 2250, 1500)

    def settings(self, base: MaskSettings) -> MaskSettings:
        """A recipe with this scale's points."""
        if not self.tiny:
            return base
        return dataclasses.replace(base, points_per_side=self.points, crop_layers=min(1, base.crop_layers))

    def segmenter(self, name: str, *, batched: bool = True) -> SamSegmenter:
        """A SAM of random weights."""
        image = decoded(self.photos(1)[0])
        sam = random_sam(name, self.device, image, tiny=self.tiny)
        dtype = "float32" if self.device.type == "cpu" else "bfloat16"
        return SamSegmenter(sam, device=str(self.device), dtype=dtype, batched=batched)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the sections and writes OUT/gpu.json and OUT/gpu.md."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="narrow models, small pictures")
    parser.add_argument("--limit", type=float, default=290, help="seconds in all")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    scale = Scale(torch.device(options.device), options.tiny)
    if scale.device.type == "cpu":
        torch.set_num_threads(1)
    book = Book(options.out / "gpu.json", options.limit)
    with torch.inference_mode():
        _engine(book, scale)
        for kind in words.KINDS:
            book.section(f"words, {kind}", 9, lambda: words_run(kind, scale))  # noqa: B023
            release(scale.device)
    for name in ("vit_b", "vit_h"):
        book.section(f"training step, {name}", 15, lambda: training_run(name, scale))  # noqa: B023
    (options.out / "gpu.md").write_text(page.of(book.results))


def _engine(book: Book, scale: Scale) -> None:
    book.section("machine", 0, lambda: machine(scale.device))
    book.section("kernels", 30, lambda: measure_kernels(scale.device, tiny=scale.tiny))
    book.section("agreement, nano", 15, lambda: nano_agreement(scale))

    # ViT-H: parts, shares, crops, the way before
    held: dict[str, SamSegmenter] = {}

    def huge() -> SamSegmenter:
        """Made once."""
        if not held:
            held["vit_h"] = scale.segmenter("vit_h")
        return held["vit_h"]

    book.section("parts, vit_h", 30, lambda: parts(huge(), scale))
    for share in SHARES:
        name = f"whole, vit_h fast, {share:.0%} pass"
        book.section(name, 12, lambda: whole_run(huge(), scale, FAST, share, 48))  # noqa: B023
    book.section("whole, vit_h sa1b", 15, lambda: whole_run(huge(), scale, SA1B, 0.5, 10))
    book.section("baseline, vit_h fast", 15, lambda: whole_run(huge(), scale, FAST, 0.5, 4, baseline=True))
    book.section("profile, vit_h", 10, lambda: profile_run(huge(), scale))
    held.clear()
    release(scale.device)

    # The other sizes
    for name in ("vit_l", "vit_b"):
        book.section(
            f"whole, {name} fast",
            15,
            lambda: whole_run(scale.segmenter(name), scale, FAST, 0.5, 48),  # noqa: B023
        )
        release(scale.device)
    book.section("whole, sam2.1_l fast", 20, lambda: sam2_run(scale))
    release(scale.device)


def machine(device: torch.device) -> dict[str, Any]:
    """What ran this."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "device": str(device),
    }
    if device.type == "cuda":
        import triton

        found |= {"gpu": torch.cuda.get_device_name(device), "triton": triton.__version__}
    warm_up()
    return found


def nano_agreement(scale: Scale) -> dict[str, Any]:
    """The shipped model's masks by the engine on the device, beside the CPU's, in float32."""
    path = weights.NANO_WEIGHTS
    settings = MaskSettings(points_per_side=4 if scale.tiny else 32, predicted_iou=0.4, stability=0.5)
    images = [drawing(seed, 96 if scale.tiny else 512) for seed in range(1 if scale.tiny else 8)]
    on_device = SamSegmenter(load_student(path), device=str(scale.device), batched=True)
    on_cpu = SamSegmenter(load_student(path), device="cpu", batched=False)
    return agreement(AutomaticMasks(on_device, settings)(images), AutomaticMasks(on_cpu, settings)(images))


def parts(segmenter: SamSegmenter, scale: Scale) -> dict[str, Any]:
    """See `parts_one_by_one`, half of the masks passing."""
    images = [decoded(photo) for photo in scale.photos(8)]
    threshold = threshold_for(segmenter, images[0], 0.5, scale.points)
    return parts_one_by_one(segmenter, images, with_threshold(scale.settings(FAST), threshold))


def whole_run(
    segmenter: Any, scale: Scale, base: MaskSettings, share: float, count: int, *, baseline: bool = False
) -> dict[str, Any]:
    """See `whole`."""
    photos = scale.photos(count)
    threshold = threshold_for(segmenter, decoded(photos[0]), share, scale.points)
    settings = with_threshold(scale.settings(base), threshold)
    threads = max(2, (os.cpu_count() or 2) // 2)
    return whole(segmenter, settings, photos, threads=threads, baseline=baseline)


def profile_run(segmenter: SamSegmenter, scale: Scale) -> list[dict[str, Any]]:
    """See `profiled`."""
    image = decoded(scale.photos(1)[0])
    threshold = threshold_for(segmenter, image, 0.5, scale.points)
    stage = AutomaticMasks(segmenter, with_threshold(scale.settings(FAST), threshold))
    stage([image])
    return profiled(stage, image, scale.device)


def sam2_run(scale: Scale) -> dict[str, Any]:
    """SAM 2.1-L: transformers' encoder, the engine's decoder and the rest."""
    segmenter = random_sam2(scale.device, batched=True, tiny=scale.tiny)
    return whole_run(segmenter, scale, FAST, 0.5, 24)


def training_run(name: str, scale: Scale) -> dict[str, Any]:
    """See benchmarks/gpu/training.py; it needs scipy, which the rest does not."""
    from benchmarks.gpu import training

    return training.step(name, scale.device, tiny=scale.tiny)


def words_run(kind: str, scale: Scale) -> dict[str, Any]:
    """A stage of words beside transformers' own code one image at a time; see benchmarks/words.py."""
    count = 16 if kind != "labels_lvis" else 4
    if scale.tiny:
        count = 2 if kind != "labels_lvis" else 1
    dtype = "float32" if scale.device.type == "cpu" else "bfloat16"
    images = [decoded(photo) for photo in photographs(count, 640, 480)]
    return words.compare(kind, images, scale.device, batch=words.BATCHES[kind], tiny=scale.tiny, dtype=dtype)


def release(device: torch.device) -> None:
    """Gives a model's memory back before the next."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
