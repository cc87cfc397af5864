"""How near a run comes to what decoding allows, with a model that costs nothing, beside Ray Data.

    python -m benchmarks.ceiling --tars 8 --images 40 --json

Photographs of SA-1B's size (2250 x 1500) lie in tars as SA-1B has them, on a real S3 store (tests/ceph.py).

    decode      the same pictures decoded in one process and thread, as a worker decodes them: images a second
                and core, the bound
    maskmill    a whole annotation (plan, Ray, workers, columns committed) whose segmenter gives nothing: from
                the first shard's commit to the last one's, a worker a core
    ray_data    read_binary_files, a task that takes tars apart and decodes, actors that do nothing, on the
                same cores of the same Ray; from the first block that comes out to the last

`share` is what each reaches of the bound times the cores. Both sides run after one another in one Ray; on a
machine with other work say so beside the numbers (`load`). The store takes cores of the same machine, which
a bucket elsewhere doesn't.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.overhead import make_photos
from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.runs.steps.annotating import annotate_shards
from maskmill.flows.runs.steps.planning import describe_run, pending_shards, plan_images
from maskmill.flows.services.ray import cluster
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.images.codec import normalise
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import RunSpec
from maskmill.workers.stages.build import Stages, build_stages
from tests.ceph import Ceph, missing_programs, running_ceph

SIZE = (2250, 1500)
BUCKET = "ceiling"


class NoModel:
    """A segmenter that embeds nothing and finds nothing, at no cost."""

    image_size, mask_threshold, images_per_batch = 64, 0.0, 1

    def embed(self, images: Sequence[Any]) -> list[Any]:
        """Zeros for each."""
        from maskmill.pipeline.segmenters.base import ImageEmbedding

        zeros = torch.zeros(1, 4, 4)
        return [ImageEmbedding(zeros, image.shape[0], image.shape[1], 43, 64) for image in images]

    def prompt(self, embedding: Any) -> Any:
        """Nothing is shared."""
        return _NoImage(embedding)


class _NoImage:
    def __init__(self, embedding: Any) -> None:
        self.embedding = embedding

    def predict(self, prompts: Any, *, multimask: bool = True) -> Any:
        """No prompt finds anything."""
        return _NoPrediction(len(prompts.points_PK2))


class _NoPrediction:
    def __init__(self, num_prompts: int) -> None:
        self.predicted_iou_PM = torch.zeros(num_prompts, 3)

    def masks(self, keep_PM: torch.Tensor) -> torch.Tensor:
        """None pass."""
        return torch.zeros(0, 16, 16)


def build_without_model(spec: RunSpec) -> Stages:
    """A worker's stages as always, but for the segmenter."""
    from maskmill.pipeline import segmenters

    segmenters.load_segmenter = lambda settings: NoModel()  # in a worker's own process
    return build_stages(spec)


def make_tars(ceph: Ceph, num_tars: int, images_a_tar: int) -> list[bytes]:
    """Tars of photographs in the bucket, every key another; the photographs' bytes."""
    ceph.make_bucket(BUCKET)
    store = open_store(f"s3://{BUCKET}/photos")
    with tempfile.TemporaryDirectory() as scratch:
        make_photos(Path(scratch, "p"), min(images_a_tar, 24), SIZE)
        photos = [path.read_bytes() for path in sorted(Path(scratch, "p").iterdir())]
    for tar_number in range(num_tars):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for number in range(images_a_tar):
                key = f"sa_{tar_number * images_a_tar + number:07}"
                # a byte behind the picture's end makes every picture another, and decodes alike
                body = photos[number % len(photos)] + key.encode()
                info = tarfile.TarInfo(f"{key}.jpg")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
        store.put(f"{tar_number:06}.tar", data.getvalue())
    return photos


def decoding_rate(photos: Sequence[bytes]) -> float:
    """Images a second of one process and thread, decoded as a worker decodes them."""
    settings = IngestSettings()
    normalise(photos[0], settings)
    began = time.perf_counter()
    for photo in photos:
        normalise(photo, settings)
    return len(photos) / (time.perf_counter() - began)


def ours(config: RunConfig) -> float:
    """Images a second of a whole annotation, from the first commit to the last."""
    dataset = f"s3://{BUCKET}/dataset"
    spec = describe_run(dataset, config)
    plan_images(dataset, [f"s3://{BUCKET}/photos"], config, None)
    shards = pending_shards(spec)
    annotated = annotate_shards(spec, config, shards, build=build_without_model)
    assert not annotated.failed_shards, annotated.failed_shards
    store = open_store(dataset)
    commits = sorted(
        (info.modified_s, int(Path(info.name).stem))
        for info in store.list(f"masks/{spec.fingerprints['masks']}/commits/")
    )
    first_s, first_shard = commits[0]
    images = sum(shards.values()) - shards[first_shard]
    return images / max(1e-9, commits[-1][0] - first_s)


def ray_data(ceph: Ceph, num_tars: int, cores: int) -> float:
    """Images a second of Ray Data over the same tars, from the first that comes out to the last."""
    import ray.data
    from pyarrow.fs import S3FileSystem

    keys = ceph.environment
    files = S3FileSystem(
        endpoint_override=ceph.endpoint,
        access_key=keys["AWS_ACCESS_KEY_ID"],
        secret_key=keys["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
    )
    paths = [f"{BUCKET}/photos/{number:06}.tar" for number in range(num_tars)]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = (
        ray.data.read_binary_files(paths, filesystem=files, override_num_blocks=num_tars)
        .flat_map(_taken_apart)
        .map_batches(_Nothing, batch_size=1, concurrency=max(1, cores // 2))
    )
    came_s: list[float] = []
    for batch in rows.iter_batches(batch_size=1):
        came_s += [time.perf_counter()] * len(batch["found"])
    return (len(came_s) - 1) / (came_s[-1] - came_s[0])


def _taken_apart(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pictures of a tar, decoded as ours are."""
    settings = IngestSettings()
    with tarfile.open(fileobj=io.BytesIO(row["bytes"])) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            yield {"key": member.name, "image": normalise(file.read(), settings).pixels_HWC}


class _Nothing:
    """Where a model would be."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"found": np.zeros(len(batch["key"]), np.int64)}


def measure(num_tars: int, images_a_tar: int) -> dict[str, Any]:
    """Both sides, and the bound; see the file's header."""
    cores = len(os.sched_getaffinity(0))
    sets = ["masks.points_per_side=1", "run.decode_threads=2", f"run.shard_size={images_a_tar}"]
    config = load_config("nano", None, [*sets, f"run.workers={cores}"])
    with tempfile.TemporaryDirectory() as folder, running_ceph(Path(folder)) as ceph:
        os.environ.update(ceph.environment)
        photos = make_tars(ceph, num_tars, images_a_tar)
        before = decoding_rate(photos)
        with cluster.connected():
            maskmill = ours(config)
            data = ray_data(ceph, num_tars, cores)
        after = decoding_rate(photos)
    bound = (before + after) / 2 * cores
    return {
        "images": num_tars * images_a_tar,
        "mean_kb": round(sum(map(len, photos)) / len(photos) / 1000, 1),
        "cores": cores,
        "decode_images_per_s_and_core": [round(before, 2), round(after, 2)],
        "maskmill": {"images_per_s": round(maskmill, 2), "share": round(maskmill / bound, 3)},
        "ray_data": {"images_per_s": round(data, 2), "share": round(data / bound, 3)},
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Reads the sizes and prints the figures."""
    parser = argparse.ArgumentParser(prog="benchmarks.ceiling")
    parser.add_argument("--tars", type=int, default=8)
    parser.add_argument("--images", type=int, default=40, help="in a tar")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if missing := missing_programs():
        raise SystemExit(f"not installed: {', '.join(missing)}")
    found = measure(given.tars, given.images)
    print(
        json.dumps(found) if given.json else "\n".join(f"{name:30} {value}" for name, value in found.items())
    )


if __name__ == "__main__":
    main()
