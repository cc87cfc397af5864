"""Browsing a very large index: the first page, filters, an order, and the server's memory.

    python -m benchmarks.browse_index --pictures 1000000 --masks 100 --folder /mnt/scratch
    python -m benchmarks.browse_index --pictures 20000              a hundredth of it

A dataset is made up as far as browsing reads it: a plan, an index of masks for each shard, commit records and
a generation; tars are empty. `--keep` leaves it there, and a second run with the same `--folder` finds it.
Times are of `Session.pictures`, which is what the page asks, in a process that has just begun; CPU seconds
beside them are of all its threads, for machines that are shared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.browse.filters import Filters
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import latest, publish
from maskmill.storage.dataset.records import CommitRecord, new_attempt
from maskmill.storage.plan.plan import PlanPart, image_key, part_bytes, part_name
from maskmill.storage.plan.tables import PlanTable, image_schema, read_footer
from maskmill.storage.shards.index import index_schema
from maskmill.storage.shards.shards import WrittenObject, write_object
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.page.session import Session

COLUMNS = {"images": "1" * 16, "masks": "2" * 16}
CREATED = "2026-11-27T00:00:00+00:00"
SHARD_SIZE = 250
QUESTIONS: tuple[tuple[str, Filters, str], ...] = (
    ("first page", Filters(), "key"),
    ("a common filter", Filters(min_iou=0.95, min_area_px=5000), "key"),
    ("a filter that one mask in 10,000 passes", Filters(min_iou=0.99999), "key"),
    ("SQL over masks and pictures", Filters(where="area_px > 99000 and source like '%7.jpg'"), "key"),
    ("the hardest first", Filters(), "hardest"),
)


def main() -> None:
    """Makes the dataset up where it isn't there, asks, prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--masks", type=int, default=100, help="of each picture")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    place = (asked.folder or Path(tempfile.gettempdir())) / f"browse-{asked.pictures}-{asked.masks}"
    store = open_store(place)
    began_s = time.perf_counter()
    if latest(store) is None:
        write_dataset(store, asked.pictures, asked.masks)
    written_s = time.perf_counter() - began_s
    try:
        found = ask(store)
    finally:
        if not asked.keep:
            shutil.rmtree(place)
    print(
        json.dumps(
            {
                "pictures": asked.pictures,
                "masks": asked.pictures * asked.masks,
                "cpus": len(os.sched_getaffinity(0)),
                "written_s": round(written_s, 1),
                **found,
            },
            indent=1,
        )
    )


def ask(store: ObjectStore) -> dict[str, Any]:
    """The questions, in order: seconds until the page answers, and until its search has ended."""
    generation = latest(store)
    assert generation is not None
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    session = Session(store, generation, person="nobody", segmenter=SegmenterSettings(model="nano"))
    opened_s, opened_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    answers: list[dict[str, Any]] = []
    for name, filters, sort in QUESTIONS:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        page = session.pictures(filters, sort, seed=0, offset=0, limit=60)
        answer_s = time.perf_counter() - began_s
        while not page["complete"] and len(page["pictures"]) < 60:
            page = session.pictures(filters, sort, seed=0, offset=0, limit=60)
        full_s, full_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        while sort != "key" and not page["complete"]:
            page = session.pictures(filters, sort, seed=0, offset=0, limit=60)
        answers.append(
            {
                "question": name,
                "first_answer_s": round(answer_s, 3),
                "page_full_s": round(full_s, 3),
                "page_full_cpu_s": round(full_cpu_s, 3),
                "ended_s": round(time.perf_counter() - began_s, 3),
                "ended_cpu_s": round(time.process_time() - began_cpu_s, 3),
                "found": page["found"],
                "searched": round(page["searched"], 4),
                "resident_mb": _resident_mb(),
            }
        )
        print(json.dumps(answers[-1]), file=sys.stderr, flush=True)
    session.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    opened = {"opened_s": round(opened_s, 3), "opened_cpu_s": round(opened_cpu_s, 3)}
    return {**opened, "answers": answers, "peak_mb": round(peak)}


def write_dataset(store: ObjectStore, pictures: int, masks_each: int) -> None:
    """A generation of made-up pictures and masks, as far as browsing reads it."""
    rng = np.random.default_rng(0)
    num_shards = -(-pictures // SHARD_SIZE)
    rows = _plan_rows(store, pictures)
    part = PlanPart(
        number=1,
        inputs=("/made/up",),
        limit=None,
        shard_size=SHARD_SIZE,
        first_shard=0,
        num_shards=num_shards,
        first_image_id=1,
        num_images=pictures,
        rows=rows,
        row_group_shards=tuple(range(0, num_shards, 40)),
        rejects=None,
        rejects_by_reason={},
        resolved=(),
        resolved_by_reason={},
        tars=None,
        skipped_by_ending={},
    )
    store.put_if_absent(part_name(1), part_bytes(part))
    for shard in range(num_shards):
        first = 1 + shard * SHARD_SIZE
        ids = np.arange(first, min(first + SHARD_SIZE, pictures + 1))
        images = _commit(store, "images", shard, len(ids), {}, None)
        index = _index(rng, ids, masks_each)
        _commit(store, "masks", shard, len(ids), {"images": images.sha256}, index)
    publish(store, COLUMNS, settings={}, models={}, totals={}, created_utc=CREATED)


def _plan_rows(store: ObjectStore, pictures: int) -> PlanTable:
    ids = np.arange(1, pictures + 1)
    keys = [image_key(int(one)) for one in ids]
    values = {
        "key": keys,
        "image_id": ids,
        "shard": (ids - 1) // SHARD_SIZE,
        "source": [f"/made/up/folder/{key}.jpg" for key in keys],
        "member": [""] * pictures,
        "offset": np.zeros(pictures, np.int64),
        "size_bytes": np.full(pictures, 300_000),
        "etag": [""] * pictures,
        "sha256": [hashlib.sha256(key.encode()).hexdigest() for key in keys],
        "caption": [f"a made-up picture {key}" for key in keys],
    }
    table = pa.table({name: pa.array(values[name], kind) for name, kind in _kinds().items()}, image_schema())
    written = _parquet(store, f"plan/000001.{new_attempt()}.parquet", table, SHARD_SIZE * 40)
    return PlanTable(written, hashlib.sha256(read_footer(store, written)).hexdigest())


def _kinds() -> dict[str, pa.DataType]:
    return {field.name: field.type for field in image_schema()}


def _index(rng: np.random.Generator, ids: np.ndarray[Any, Any], masks_each: int) -> pa.Table:
    count = len(ids) * masks_each
    image_ids = np.repeat(ids, masks_each)
    rows = pa.array(np.repeat(np.arange(len(ids)), masks_each))
    keys = pa.array([image_key(int(one)) for one in ids]).take(rows)
    place = np.tile(np.arange(masks_each), len(ids))
    annotation_ids = image_ids * 100_000 + place
    values = {
        "key": keys,
        "image_id": image_ids,
        "annotation_id": annotation_ids,
        "area_px": rng.integers(100, 100_000, count),
        **{name: rng.uniform(0, 2000, count).round() for name in ("bbox_x", "bbox_y", "bbox_w", "bbox_h")},
        "predicted_iou": 0.88 + 0.12 * rng.random(count),
        "stability_score": 0.95 + 0.05 * rng.random(count),
        "output_token": rng.integers(0, 3, count, np.int32),
        "parent": pa.array(annotation_ids - 1, pa.int64(), mask=place % 3 == 0),
        "source": pa.array([f"/made/up/folder/{image_key(int(one))}.jpg" for one in ids]).take(rows),
    }
    return pa.table({name: values[name] for name in index_schema().names}, index_schema())


def _parquet(store: ObjectStore, name: str, table: pa.Table, group: int) -> WrittenObject:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, row_group_size=group)
    return write_object(store, name, buffer.getvalue().to_pybytes(), len(table))


def _commit(
    store: ObjectStore, column: str, shard: int, count: int, inputs: dict[str, str], index: pa.Table | None
) -> CommitRecord:
    version, attempt = ColumnVersion(store, column, COLUMNS[column]), new_attempt()
    rows = None
    if index is not None:
        rows = _parquet(store, version.index_name(shard, attempt), index, 1 << 20)
    return version.commit(
        CommitRecord(
            column=column,
            fingerprint=version.fingerprint,
            shard=shard,
            attempt=attempt,
            data=write_object(store, version.data_name(shard, attempt), b"", count),
            index=rows,
            num_read=count,
            num_written=count,
            inputs=inputs,
            created_utc=CREATED,
        )
    )


def _resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


if __name__ == "__main__":
    main()
