"""Planning very many inputs: seconds, memory, and what a worker pays to read its shard of the plan.

    python -m benchmarks.planning --tars 1000000 --images 1 --shard-size 1      a million shards
    python -m benchmarks.planning --tars 11000 --images 1000 --shard-size 1000  SA-1B's 11 M images

The lister is a stand-in: it names tars that do not exist. By default what is inside them is made up as well,
so that planning itself is measured: ledger, duplicates, shard cuts, Parquet. `--read` makes each tar up as
bytes and has it scanned and hashed as a real one would be.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from typing import Any, BinaryIO, cast
from unittest import mock

from maskmill.storage.plan.examine import Examined, HashedImage, Known, ScannedTar
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.plan.walk import InputFile, InputProblem, Skipped
from maskmill.storage.shards.tar_format import end_marker, member_header, padding
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store

IMAGE_BYTES = 700
PLAN = "maskmill.storage.plan"


def main() -> None:
    """Plans once, plans again with nothing new, reads a few shards; prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--tars", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=1, help="in each tar")
    parser.add_argument("--shard-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--read", action="store_true", help="scan and hash made-up tars")
    parser.add_argument("--again", action="store_true", help="plan the same inputs once more")
    parser.add_argument("--folder", default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        store = open_store(folder)
        found: dict[str, Any] = {
            "cpus": len(os.sched_getaffinity(0)),
            "started": time.strftime("%Y-%m-%d %H:%M"),
            "resident_megabytes_at_start": peak_megabytes(),
        }
        found["first"] = plan(store, asked)
        found["megabytes_at_its_end"] = peak_megabytes()
        found["plan_megabytes"] = {
            info.name.partition(".")[2].partition(".")[2] or "json": round(info.size_bytes / 1e6, 2)
            for info in store.list("plan/")
        }
        found["worker"] = read_as_a_worker(store)
        if asked.again:
            found["again"] = plan(store, asked)
        found["peak_megabytes"] = peak_megabytes()
    print(json.dumps(found, indent=1))


def plan(store: ObjectStore, asked: argparse.Namespace) -> dict[str, Any]:
    """One call of make_plan over the stand-in."""
    listing = StandInListing(asked.tars)
    patches: list[Any] = [mock.patch(f"{PLAN}.make_plan.list_inputs", lambda *args, **kwargs: listing)]
    if asked.read:
        tars = StandInTars(asked.images)
        patches.append(mock.patch(f"{PLAN}.examine.address_store", lambda source: (tars, source)))
    else:
        patches.append(mock.patch(f"{PLAN}.make_plan.examine", examine_stand_in(asked.images)))
    began, cpu = time.perf_counter(), time.process_time()
    for patch in patches:
        patch.start()
    try:
        summary = make_plan(store, ["stand-in"], shard_size=asked.shard_size, num_threads=asked.threads)
    finally:
        for patch in patches:
            patch.stop()
    seconds = time.perf_counter() - began
    return {
        "images": summary.num_images,
        "new": summary.num_new_images,
        "shards": summary.num_shards,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "us_an_image": round(1e6 * seconds / max(1, summary.num_images), 1),
    }


def read_as_a_worker(store: ObjectStore) -> dict[str, Any]:
    """What a worker does first: load the plans, read its shard."""
    began = time.perf_counter()
    found = load_plans(store)
    loaded = time.perf_counter()
    for shard in (0, found.num_shards // 2, found.num_shards - 1):
        assert len(found.images(shard)) == found.num_images_of(shard)
    done = time.perf_counter()
    return {
        "load_plans_ms": round(1000 * (loaded - began), 2),
        "ms_a_shard": round(1000 * (done - loaded) / 3, 2),
    }


class StandInListing:
    """An InputListing of tars that do not exist."""

    def __init__(self, num_tars: int) -> None:
        self.inputs = ("stand-in",)
        self.skipped: Skipped = Counter()
        self._num_tars = num_tars

    def __iter__(self) -> Iterator[InputFile | InputProblem]:
        for number in range(self._num_tars):
            yield InputFile(f"s3://bucket/data/part-{number:08d}.tar", "tar", 10_240, f"{number:032x}")


class StandInTars:
    """A store in which every name is a tar of `num_images` little images, made up when it is read."""

    def __init__(self, num_images: int) -> None:
        self._num_images = num_images

    def open_read(self, name: str, start: int = 0, size: int | None = None) -> BinaryIO:
        """The tar's bytes."""
        content = hashlib.sha256(name.encode()).digest()
        body = b"".join(
            member_header(f"{number:06d}.jpg", IMAGE_BYTES)
            + (content + number.to_bytes(4, "big")).ljust(IMAGE_BYTES, b"\1")
            + padding(IMAGE_BYTES)
            for number in range(self._num_images)
        )
        return cast(BinaryIO, io.BytesIO(body + end_marker(len(body))))


def examine_stand_in(num_images: int) -> Any:
    """An `examine` that makes up what is in each tar."""

    def examine(
        found: Iterable[InputFile | InputProblem], known: Known, num_threads: int
    ) -> Generator[Examined]:
        for tar in found:
            already = known.knows_tar(tar.source, tar.etag)
            if already is not None:
                yield already
                continue
            for number in range(num_images):
                sha256 = hashlib.sha256(f"{tar.source} {number}".encode()).hexdigest()
                member = f"sa_{number:08d}.jpg"
                yield HashedImage(tar.source, member, 512 + 1536 * number, 1000, tar.etag, sha256, None)
            yield ScannedTar(tar.source, tar.etag, Counter())

    return examine


def peak_megabytes() -> float:
    """The most memory this process has had resident."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1)


if __name__ == "__main__":
    main()
