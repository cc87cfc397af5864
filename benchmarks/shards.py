"""Shards read and written beside plain `tarfile` and `webdataset`; commits; decoding ahead of a GPU.

    python -m benchmarks.shards --runs 7
    python -m benchmarks.shards --only commits --commits 100000

read      ours: size, sha256, structure and count checked. Peers: `tarfile.open(path)`, each member read and
          put into one sha256 (`r:`, the fastest way tarfile has); the same streamed (`r|`); webdataset,
          which checks nothing.
write     ours: sha256, fsync of file and folder. Peers: tarfile into a file, sha256 of what it writes, with
          and without fsync; webdataset's TarWriter, neither.
commits   commit records on the real local store, data objects of no bytes beside them.
decode    JPEGs of 1500 x 2250 decoded by one thread: how many cores feed a GPU that takes 50 images/s.

All variants take turns in each run; ratios are medians of paired runs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import publish
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.shards.shards import HashingWriter, Sample, WrittenObject, read_shard, write_shard
from maskmill.storage.stores.open import open_store

GPU_IMAGES_PER_S = 50.0
COMMITTERS = 32  # as many workers commit at once


def main() -> None:
    """Runs what was asked for and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--only", choices=("read", "write", "commits", "decode"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--jpeg-bytes", type=int, default=450_000)
    parser.add_argument("--json-bytes", type=int, default=60_000)
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--folder", default=None, help="where to write; a temporary folder by default")
    asked = parser.parse_args()
    found: dict[str, Any] = {"cpus": len(os.sched_getaffinity(0)), "started": time.strftime("%Y-%m-%d %H:%M")}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        samples = make_samples(asked.samples, asked.jpeg_bytes, asked.json_bytes)
        wanted = (asked.only,) if asked.only else ("read", "write", "commits", "decode")
        if "read" in wanted:
            found["read"] = compare_reading(Path(folder), samples, asked.runs)
        if "write" in wanted:
            found["write"] = compare_writing(Path(folder), samples, asked.runs)
        if "commits" in wanted:
            found["commits"] = measure_commits(Path(folder), asked.commits)
        if "decode" in wanted:
            found["decode"] = measure_decoding(asked.runs)
    print(json.dumps(found, indent=1))


def make_samples(num_samples: int, jpeg_bytes: int, json_bytes: int) -> list[Sample]:
    """Samples of random bytes: a picture and a record each."""
    draw = random.Random(0)
    return [
        Sample(f"{i:09d}", {"jpg": draw.randbytes(jpeg_bytes), "json": draw.randbytes(json_bytes)})
        for i in range(num_samples)
    ]


def compare_reading(folder: Path, samples: list[Sample], runs: int) -> dict[str, Any]:
    """Seconds a shard of each way, and how much faster ours is."""
    store = open_store(folder)
    written = write_shard(store, "read.tar", samples)
    path = folder / "read.tar"
    return compare(
        {
            "ours": lambda: sum(len(sample.files) for sample in read_shard(store, written)),
            "tarfile + sha256": lambda: read_by_tarfile(path, "r:"),
            "tarfile streamed + sha256": lambda: read_by_tarfile(path, "r|"),
            "webdataset": lambda: read_by_webdataset(path),
        },
        runs,
        written.size_bytes,
    )


def read_by_tarfile(path: Path, mode: str) -> int:
    """All members by tarfile, all their bytes into one sha256."""
    sha256, count = hashlib.sha256(), 0
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member in tar:
            file = tar.extractfile(member)
            sha256.update(file.read())
            count += 1
    return count


def read_by_webdataset(path: Path) -> int:
    """All samples by webdataset's own pipeline."""
    from webdataset import WebDataset

    return sum(len(sample) - 4 for sample in WebDataset(str(path), shardshuffle=False, empty_check=False))


def compare_writing(folder: Path, samples: list[Sample], runs: int) -> dict[str, Any]:
    """Seconds a shard of each way, and how much faster ours is."""
    store = open_store(folder)
    size = write_shard(store, "write.tar", samples).size_bytes
    return compare(
        {
            "ours": lambda: write_shard(store, "write.tar", samples).num_samples,
            "tarfile + sha256 + fsync": lambda: write_by_tarfile(folder / "t1.tar", samples, fsync=True),
            "tarfile + sha256": lambda: write_by_tarfile(folder / "t2.tar", samples, fsync=False),
            "webdataset": lambda: write_by_webdataset(folder / "w.tar", samples),
        },
        runs,
        size,
    )


def write_by_tarfile(path: Path, samples: list[Sample], *, fsync: bool) -> int:
    """The same members by tarfile, sha256 of the tar."""
    with path.open("wb") as file:
        hashing = HashingWriter(file)
        with tarfile.open(fileobj=hashing, mode="w") as tar:
            for sample in samples:
                for ending, content in sorted(sample.files.items()):
                    info = tarfile.TarInfo(f"{sample.key}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        if fsync:
            file.flush()
            os.fsync(file.fileno())
    return len(hashing.hexdigest())


def write_by_webdataset(path: Path, samples: list[Sample]) -> int:
    """The same samples by webdataset's writer."""
    from webdataset.writer import TarWriter

    with path.open("wb") as file:
        writer = TarWriter(file, encoder=False, compress=False, mtime=0)
        for sample in samples:
            writer.write({"__key__": sample.key, **sample.files})
        writer.close()
    return len(samples)


def compare(ways: dict[str, Callable[[], int]], runs: int, size_bytes: int) -> dict[str, Any]:
    """Medians of each way, and of the paired ratios peer / ours: above 1, ours is faster."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(runs):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return {
        "megabytes": round(size_bytes / 1e6, 1),
        "runs": runs,
        "seconds": {name: round(statistics.median(taken), 4) for name, taken in seconds.items()},
        "ours is faster by": {
            name: round(
                statistics.median(peer / ours for peer, ours in zip(taken, seconds["ours"], strict=True)), 3
            )
            for name, taken in seconds.items()
            if name != "ours"
        },
    }


def measure_commits(folder: Path, num_commits: int) -> dict[str, Any]:
    """Commits on the local store, then everything that grows with them: listing, reading, memory."""
    store = open_store(folder / "commits")
    version = ColumnVersion(store, "masks", "0" * 16)
    store.put(version.data_name(0, "a"), b"")
    nothing = WrittenObject(version.data_name(0, "a"), 0, hashlib.sha256(b"").hexdigest(), 0)
    record = CommitRecord(
        column="masks",
        fingerprint=version.fingerprint,
        shard=0,
        attempt="a",
        data=nothing,
        num_read=0,
        num_written=0,
        inputs={"images": "0" * 64},
        models={"segmenter": "nano sha256:" + "0" * 64},
        seconds_by_step={"encode": 1.5, "decode": 2.5},
        created_utc="2025-01-01T00:00:00+00:00",
    )
    before = resident_bytes()
    began = time.perf_counter()
    with ThreadPoolExecutor(COMMITTERS) as pool:
        for _ in pool.map(lambda shard: version.commit(replace(record, shard=shard)), range(num_commits)):
            pass
    committed = time.perf_counter()
    peak = Peak()
    listed = sum(1 for _ in peak.over(store.list()))
    listing = time.perf_counter()
    shards = len(version.committed())
    known = time.perf_counter()
    read = sum(1 for _ in peak.over(version.records()))
    done = time.perf_counter()
    assert (listed, shards, read) == (num_commits + 1, num_commits, num_commits)
    reading_peak = peak.bytes
    generation = publish(
        store, {"masks": version.fingerprint}, settings={}, models={}, totals={}, created_utc="2025-01-01"
    )
    published = time.perf_counter()
    assert len(generation.rows()) == num_commits
    return {
        "commits": num_commits,
        "commits_at_once": COMMITTERS,
        "ms_a_commit": round(1000 * (committed - began) / num_commits, 3),
        "list_all_s": round(listing - committed, 3),
        "committed_s": round(known - listing, 3),
        "read_all_records_s": round(done - known, 3),
        "us_a_record": round(1e6 * (done - known) / num_commits, 1),
        "publish_s": round(published - done, 3),
        "bytes_a_record": round(store.stat(version.record_name(0)).size_bytes),
        "manifest_bytes_a_row": round(generation.manifest.size_bytes / num_commits, 1),
        "resident_megabytes": {
            "before": round(before / 1e6, 1),
            "listing and reading": round(reading_peak / 1e6, 1),
            "with the generation's rows": round(resident_bytes() / 1e6, 1),
        },
    }


class Peak:
    """The highest resident memory seen while things pass by."""

    def __init__(self) -> None:
        self.bytes = resident_bytes()

    def over(self, things: Iterator[Any]) -> Iterator[Any]:
        """The same things; looks at memory now and then."""
        for number, thing in enumerate(things):
            if number % 1000 == 0:
                self.bytes = max(self.bytes, resident_bytes())
            yield thing


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_decoding(runs: int) -> dict[str, Any]:
    """What one core decodes of SA-1B-sized photographs, and how many cores a GPU of 50 images/s needs."""
    import numpy as np
    from PIL import Image

    from maskmill.workers.foreign.images.codec import decode_image, normalise
    from maskmill.workers.run.ingest_settings import IngestSettings

    draw = np.random.default_rng(0)
    small = draw.integers(0, 255, (47, 71, 3), np.uint8)
    picture = Image.fromarray(small).resize((2250, 1500), Image.Resampling.BICUBIC)
    noise = draw.normal(0, 6, (1500, 2250, 3))
    pixels = (np.asarray(picture, np.float32) + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    data = buffer.getvalue()
    taken: dict[str, list[float]] = {"decode": [], "ingest": []}
    for _ in range(max(3, runs)):  # CPU time: what a core gives, however busy the others are
        began = time.process_time()
        for _ in range(5):
            decode_image(data)
        taken["decode"].append((time.process_time() - began) / 5)
        began = time.process_time()
        normalise(data, IngestSettings())
        taken["ingest"].append(time.process_time() - began)
    seconds = {name: statistics.median(found) for name, found in taken.items()}
    return {
        "jpeg_bytes": len(data),
        "images_per_s_a_core": {name: round(1 / found, 2) for name, found in seconds.items()},
        "cores_for_50_images_per_s": {
            name: round(GPU_IMAGES_PER_S * found, 2) for name, found in seconds.items()
        },
    }


if __name__ == "__main__":
    main()
