"""What `maskmill generate` costs an image beside the bare engine, once it runs.

    python -m benchmarks.overhead --images 48 --json

A dataset of scikit-image's photographs, cut and resized, goes through the whole of `maskmill generate`
(Prefect, Ray, one worker, a local folder). Seconds an image are counted from the first shard's commit to the
last one's: starting is left out; reading, decoding, encoding, tar, index, commit and the pool's hand-over are
in. Before and after it the same images, already decoded, go through the engine alone in an actor of the same
Ray, with the same settings and threads. `overhead` is the share that generate takes more than their mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image

from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.deployments.quick_start import run_generate
from maskmill.flows.services.ray import cluster

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "hubble_deep_field.jpg")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(prog="benchmarks.overhead")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--size", default="640x480", metavar="WIDTHxHEIGHT")
    parser.add_argument("--recipe", default="nano")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="as maskmill's own")
    parser.add_argument("--shard-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="of the model, on both sides")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    pairs = [f"run.shard_size={options.shard_size}", f"segmenter.threads={options.threads}", "run.workers=1"]
    config = load_config(options.recipe, None, [*pairs, *options.set])
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch, "photos")
        make_photos(photos, options.images, (width, height))
        result = compare(photos, Path(scratch, "dataset"), config)
    result |= {"size": options.size, "recipe": options.recipe, "threads": options.threads}
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24} {value}")


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """`count` different JPEGs of a size."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        with Image.open(str(files("skimage.data") / PHOTOS[number % len(PHOTOS)])) as picture:
            photo = picture.convert("RGB")
        side = rng.uniform(0.6, 1.0)
        width, height = int(photo.width * side), int(photo.height * side)
        left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
        cut = photo.crop((int(left), int(top), int(left) + width, int(top) + height))
        cut.resize(size, Image.Resampling.LANCZOS).save(folder / f"{number:04}.jpg", quality=92)


def compare(photos: Path, dataset: Path, config: RunConfig) -> dict[str, Any]:
    """Bare, generate, bare, in one Ray."""
    first = config.run.shard_size or 1  # main gives one
    settled = sorted(photos.iterdir())[first:]
    with cluster.connected():
        before_s = bare_seconds(settled, config)
        began = time.perf_counter()
        report = run_generate(str(dataset), [str(photos)], config)
        whole_s = time.perf_counter() - began
        after_s = bare_seconds(settled, config)
    commits = sorted(path.stat().st_mtime for path in dataset.glob("masks/*/commits/*.json"))
    generate_s = (commits[-1] - commits[0]) / len(settled)
    bare_s = (before_s + after_s) / 2
    return {
        "overhead": round(generate_s / bare_s - 1, 4),
        "generate_seconds_an_image": round(generate_s, 4),
        "bare_seconds_an_image": [round(before_s, 4), round(after_s, 4)],
        "images": len(settled),
        "shards": len(commits),
        "masks": report.masks,
        "whole_run_seconds": round(whole_s, 1),
        "seconds_an_image_by_step": steps(dataset, len(settled) + first),
    }


def steps(dataset: Path, num_images: int) -> dict[str, float]:
    """Seconds an image of each step, from the commit records; threads work side by side."""
    sums: dict[str, float] = {}
    for path in dataset.glob("*/*/commits/*.json"):
        record = json.loads(path.read_text())
        for name, seconds in record["seconds_by_step"].items():
            key = f"{record['column']}.{name}"
            sums[key] = sums.get(key, 0.0) + seconds
    return {name: round(seconds / num_images, 4) for name, seconds in sorted(sums.items())}


def bare_seconds(paths: Sequence[Path], config: RunConfig) -> float:
    """Mean seconds an image of the engine alone."""
    threads = config.segmenter.threads or 1
    remote: Any = ray.remote(BareEngine)
    engine = remote.options(num_cpus=threads).remote(config)
    seconds: list[float] = ray.get(engine.run.remote(list(paths)))
    ray.kill(engine)
    return statistics.fmean(seconds)


class BareEngine:
    """The grid-mask stage and nothing around it."""

    def __init__(self, config: RunConfig) -> None:
        from maskmill.pipeline.masks.automask import AutomaticMasks, warm_up
        from maskmill.pipeline.segmenters import load_segmenter

        warm_up()
        self._stage = AutomaticMasks(load_segmenter(config.segmenter), config.masks)

    def run(self, paths: list[Path]) -> list[float]:
        """Seconds of each image, decoded beforehand; the first is done once more, ahead of the clock."""
        images = [np.array(Image.open(path).convert("RGB")) for path in paths]
        self._stage([images[0]])
        seconds = []
        for image in images:
            began = time.perf_counter()
            self._stage([image])
            seconds.append(time.perf_counter() - began)
        return seconds


if __name__ == "__main__":
    main()
