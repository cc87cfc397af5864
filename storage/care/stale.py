"""Which shards lack which column versions of a run, and how old and how good what they have now is.

It doesn't know: why a fingerprint is another; settings and models say that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.join import read_record
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.plan.plan import Plan
from maskmill.storage.shards.index import read_index
from maskmill.storage.stores.base import ObjectStore

THREADS = 16


@dataclass(frozen=True)
class StaleShard:
    """A shard with something to recompute.

    Attributes:
        shard: number. num_images: planned in it.
        columns: lacking in the run's version, in the order they are made.
        is_new: the generation has nothing of it.
    """

    shard: int
    num_images: int
    columns: tuple[str, ...]
    is_new: bool


def stale_shards(
    store: ObjectStore, fingerprints: Mapping[str, str], generation: Generation | None, plan: Plan
) -> list[StaleShard]:
    """The planned shards that lack a column version, by number; from names of commit records alone.

    Args:
        fingerprints: of the run, by column, in the order they are made.
        generation: the latest; None before the first.
    """
    committed = {
        column: ColumnVersion(store, column, digits).committed() for column, digits in fingerprints.items()
    }
    known = {row.shard for row in generation.rows()} if generation is not None else set()
    found = []
    for shard in range(plan.num_shards):
        lacking = tuple(column for column, shards in committed.items() if shard not in shards)
        if lacking:
            found.append(StaleShard(shard, plan.num_images_of(shard), lacking, shard not in known))
    return found


def ages(store: ObjectStore, rows: Sequence[GenerationRow]) -> dict[int, str]:
    """When each row's shard was made, ISO 8601; reads the rows' records. Raises DamagedObject."""
    with ThreadPoolExecutor(THREADS) as threads:
        records = threads.map(lambda row: read_record(store, row), rows)
        return {record.shard: record.created_utc for record in records}


def qualities(
    store: ObjectStore, rows: Sequence[GenerationRow], verdicts: Mapping[int, GenerationRow]
) -> dict[int, float]:
    """How good each shard's masks are, 0 without masks: the mean of what a verifier expects their IoU to be
    where all the shards have its verdicts, else of the IoU that the model predicts.

    Args:
        store: the dataset.
        rows: of columns with masks; their indexes are read.
        verdicts: by shard.

    Raises:
        DamagedObject: an index is not what was written.
    """
    score = "predicted_iou"
    if rows and all(row.shard in verdicts for row in rows):
        rows, score = [verdicts[row.shard] for row in rows], "expected_iou"

    def mean(row: GenerationRow) -> tuple[int, float]:
        """Of one shard."""
        if row.index is None or not row.index.num_samples:
            return row.shard, 0.0
        scores = read_index(store, row.index)[score].to_pylist()
        return row.shard, sum(scores) / len(scores)

    with ThreadPoolExecutor(THREADS) as threads:
        return dict(threads.map(mean, rows))


def seconds_per_image(store: ObjectStore, rows: Sequence[GenerationRow]) -> float | None:
    """What a column took, by its rows' records: seconds of all its steps for an image; None without any.

    Steps that only wait are left out. Raises DamagedObject.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        records = list(threads.map(lambda row: read_record(store, row), rows))
    images = sum(record.num_read for record in records)
    return sum(_work(record) for record in records) / images if images else None


def _work(record: CommitRecord) -> float:
    return sum(s for step, s in record.seconds_by_step.items() if not step.startswith("wait"))
