"""Publishing a generation over a large one: seconds of CPU, memory, and requests, by what is new.

    python -m benchmarks.publishing --shards 1000000 --new 1000
    python -m benchmarks.publishing --shards 18300 --new 0        SA-1B's size, nothing new

The store is a stand-in: it lists the commit records of a million shards without holding them, makes up a
record when it is read, and keeps what is written. One shard in twenty rejects an image at ingest, one in a
hundred another one at its masks. Everything between is the product's own step.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO
from unittest import mock

from maskmill.flows.config import load_config
from maskmill.flows.runs.steps import publishing
from maskmill.storage.dataset import generations
from maskmill.storage.dataset.generations import Generation, generation_name
from maskmill.storage.dataset.manifest import GenerationRow, row_table, write_manifest
from maskmill.storage.dataset.records import CommitRecord, Reject, record_bytes
from maskmill.storage.plan.plan import PlanPart, image_key, part_bytes, part_name
from maskmill.storage.plan.tables import PlanTable
from maskmill.storage.shards.shards import WrittenObject
from maskmill.storage.stores.base import ObjectInfo, ObjectStore, Unfinished
from maskmill.storage.stores.local import LocalStore
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec

if TYPE_CHECKING:
    import pyarrow as pa

DIGITS = {IMAGES: "1" * 16, MASKS: "2" * 16}
PICTURES = 600  # in a shard


@dataclass(eq=False)
class Made:
    """A store that makes up the commit records of `num_shards` shards; the rest lies in a folder."""

    folder: LocalStore
    num_shards: int
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def root(self) -> str:
        """See `ObjectStore.root`."""
        return self.folder.root

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        self.calls["list"] += 1
        if prefix.endswith("/commits/"):
            for shard in range(self.num_shards):
                yield ObjectInfo(f"{prefix}{shard:06d}.json", 700, "e", 1e9)
        else:
            yield from self.folder.list(prefix)

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """See `ObjectStore.folders`."""
        made = {"": tuple(DIGITS), f"{IMAGES}/": (DIGITS[IMAGES],), f"{MASKS}/": (DIGITS[MASKS],)}
        return made.get(prefix) or self.folder.folders(prefix)

    def stat(self, name: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        self.calls["stat"] += 1
        if "/data/" in name or "/index/" in name:
            return ObjectInfo(name, 1000, "e", 1e9)
        return self.folder.stat(name)

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See `ObjectStore.read`."""
        self.calls["read"] += 1
        column, _, rest = name.partition("/")
        if "/commits/" in rest:
            stem = rest.rpartition("/")[2].removesuffix(".json")
            return record_bytes(made_record(column, int(stem)))
        return self.folder.read(name, start, size)

    def open_read(self, name: str, start: int = 0, size: int | None = None) -> BinaryIO:
        """See `ObjectStore.open_read`."""
        return io.BytesIO(self.read(name, start, size))

    @contextmanager
    def open_write(self, name: str) -> Iterator[BinaryIO]:
        """See `ObjectStore.open_write`."""
        self.calls["write"] += 1
        with self.folder.open_write(name) as target:
            yield target

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See `ObjectStore.put_if_absent`."""
        self.calls["write"] += 1
        return self.folder.put_if_absent(name, data)

    def put(self, name: str, data: bytes) -> None:
        """See `ObjectStore.put`."""
        self.folder.put(name, data)

    def delete(self, name: str) -> None:
        """See `ObjectStore.delete`."""
        self.folder.delete(name)

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """See `ObjectStore.unfinished`."""
        return self.folder.unfinished(prefix)

    def abandon(self, write: Unfinished) -> None:
        """See `ObjectStore.abandon`."""
        self.folder.abandon(write)


def made_record(column: str, shard: int) -> CommitRecord:
    """The record of a shard, the same each time; masks are made from their images."""
    folder = f"{column}/{DIGITS[column]}"
    sha256 = hashlib.sha256(f"{column} {shard}".encode()).hexdigest()
    attempt = sha256[:16]
    masks = column == MASKS
    reached, rejects = _counts(column, shard)
    key = image_key(shard * PICTURES + 1 + masks)
    return CommitRecord(
        column=column,
        fingerprint=DIGITS[column],
        shard=shard,
        attempt=attempt,
        data=WrittenObject(f"{folder}/data/{shard:06d}.{attempt}.tar", 1000, sha256, reached - rejects),
        index=WrittenObject(f"{folder}/index/{shard:06d}.{attempt}.parquet", 1000, sha256, 100 * PICTURES)
        if masks
        else None,
        num_read=reached,
        num_written=reached - rejects,
        rejects=(Reject(key, "too_small", "of one pixel"),) if rejects else (),
        inputs={IMAGES: made_record(IMAGES, shard).sha256} if masks else {},
        models={"segmenter": "vit_h"} if masks else {},
        created_utc="2025-01-01T00:00:00+00:00",
    )


def prepare(store: Made, num_known: int) -> None:
    """A plan of all shards, and a generation of the first of them."""
    store.folder.put("plan/rows.parquet", b"never read")
    rows = PlanTable(WrittenObject("plan/rows.parquet", 10, hashlib.sha256(b"never read").hexdigest(), 0), "")
    num_images = store.num_shards * PICTURES
    rows = PlanTable(WrittenObject("plan/rows.parquet", 10, rows.written.sha256, num_images), "")
    part = PlanPart(
        number=1, inputs=("/photos",), limit=None, shard_size=PICTURES, first_shard=0,
        num_shards=store.num_shards, first_image_id=1, num_images=num_images, rows=rows,
        row_group_shards=(0,), rejects=None, rejects_by_reason={}, resolved=(), resolved_by_reason={},
        tars=None, skipped_by_ending={},
    )  # fmt: skip
    store.put_if_absent(part_name(1), part_bytes(part))
    if num_known:
        _publish_first(store, num_known)


def known_row(column: str, shard: int) -> GenerationRow:
    """As `row_of` makes it of the shard's record; its checksum is any but the first one's, which is read."""
    digest = hashlib.sha256(f"{column} {shard}".encode()).hexdigest()
    folder, attempt, masks = f"{column}/{DIGITS[column]}", digest[:16], column == MASKS
    reached, num_rejects = _counts(column, shard)
    num_written = reached - num_rejects
    data = WrittenObject(f"{folder}/data/{shard:06d}.{attempt}.tar", 1000, digest, num_written)
    index = WrittenObject(f"{folder}/index/{shard:06d}.{attempt}.parquet", 1000, digest, 100 * PICTURES)
    return GenerationRow(
        shard,
        column,
        DIGITS[column],
        f"{folder}/commits/{shard:06d}.json",
        digest if shard else made_record(column, shard).sha256,
        data,
        index if masks else None,
        reached,
        num_written,
        num_rejects,
        '{"too_small": 1}' if num_rejects else "{}",
    )


def _counts(column: str, shard: int) -> tuple[int, bool]:
    """How many pictures reach a column of a shard, and whether it rejects one."""
    if column == IMAGES:
        return PICTURES, shard % 20 == 0
    return PICTURES - (shard % 20 == 0), shard % 100 == 0


def _publish_first(store: Made, num_known: int) -> None:
    """The generation before, written as it is, since nothing of it is new to anybody."""

    def tables() -> Iterator[pa.Table]:
        """Some thousand shards at a time."""
        for first in range(0, num_known, 10_000):
            shards = range(first, min(num_known, first + 10_000))
            yield row_table([known_row(column, shard) for shard in shards for column in (IMAGES, MASKS)])

    manifest = write_manifest(store, "generations/000001/manifest.first.parquet", tables())
    generation = Generation(
        1, None, DIGITS, {}, {"segmenter": "vit_h"}, {}, "2025-01-01T00:00:00+00:00", manifest, store
    )
    store.put_if_absent(generation_name(1), generations._generation_bytes(generation))


def main() -> int:
    """Prepares in a process of its own, publishes in this one; writes one JSON document."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--shards", type=int, default=100_000)
    asked.add_argument("--new", type=int, default=1000)
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Made(LocalStore(folder), chosen.shards)
        child = os.fork()
        if not child:
            prepare(store, chosen.shards - chosen.new)
            os._exit(0)
        os.waitpid(child, 0)
        found = publish(store)
    sys.stdout.write(json.dumps({"shards": chosen.shards, "new": chosen.new, **found}, indent=1) + "\n")
    return 0


def publish(store: Made) -> dict[str, Any]:
    """The step that every run ends with, measured."""
    spec = RunSpec(root=store.root, fingerprints=DIGITS)
    config = load_config("nano")
    opened: ObjectStore = store
    store.calls.clear()
    began, cpu = time.monotonic(), time.process_time()
    with mock.patch.object(publishing, "open_store", lambda root: opened):
        published = publishing.publish_and_verify(spec, config)
    return {
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "calls": dict(store.calls),
        "generation": published.generation,
        "problems": len(published.check.problems),
        "annotated": published.check.annotated,
    }


if __name__ == "__main__":
    raise SystemExit(main())
