"""A dataset with a plan, and one Ray cluster for the session."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec
from maskmill.workers.run.work_settings import WorkSettings
from tests.fakes import write_pictures


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Four pictures in two shards, three masks each, with their true masks as automatic ones."""
    from tests.workers.train.training_set import publish_scenes  # imports torch

    publish_scenes(tmp_path, count=4)
    return open_store(str(tmp_path / "dataset"))


@dataclass(frozen=True)
class Dataset:
    """A planned dataset, and how to look into it."""

    spec: RunSpec
    num_shards: int
    num_images_per_shard: int

    def version(self, column: str) -> ColumnVersion:
        return ColumnVersion(open_store(self.spec.root), column, self.spec.fingerprints[column])

    def record(self, column: str, shard: int) -> CommitRecord:
        record = self.version(column).record(shard)
        assert record is not None
        return record

    def contents(self, column: str) -> dict[str, dict[str, bytes]]:
        """Every committed sample of a column by key; a key twice is an error."""
        version = self.version(column)
        found: dict[str, dict[str, bytes]] = {}
        for shard in sorted(version.committed()):
            for sample in version.read(self.record(column, shard)):
                assert sample.key not in found, f"{sample.key} is there twice"
                found[sample.key] = dict(sample.files)
        return found

    def rejects(self, column: str) -> dict[str, str]:
        """Reason by key."""
        shards = sorted(self.version(column).committed())
        return {r.key: r.reason for shard in shards for r in self.record(column, shard).rejects}


Colours = dict[int, tuple[int, int, int]]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """make_dataset(num_images, shard_size, special={place: colour}, **WorkSettings' fields) -> Dataset."""

    def make(
        num_images: int, shard_size: int, *, special: Colours | None = None, name: str = "data", **work: Any
    ) -> Dataset:
        inputs = tmp_path / "inputs"
        if not inputs.exists():
            write_pictures(inputs, num_images, special=special)
        return plan_dataset(tmp_path / name, inputs, shard_size, **work)

    return make


def plan_dataset(root: Path, inputs: Path, shard_size: int, **work: Any) -> Dataset:
    """Plans these inputs and makes up fingerprints."""
    summary = make_plan(open_store(root), [str(inputs)], shard_size=shard_size)
    spec = RunSpec(
        root=str(root),
        fingerprints={IMAGES: "0" * 16, MASKS: "1" * 16},
        work=WorkSettings(**work),
    )
    return Dataset(spec, summary.num_shards, shard_size)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Ray with four CPUs, whatever the machine has; RAY_ADDRESS names a cluster of four to use instead."""
    import ray

    from maskmill.flows.services.ray.cluster import connect

    connect(os.environ.get("RAY_ADDRESS"), num_cpus=4)
    yield
    ray.shutdown()
    with warnings.catch_warnings():  # ray forgets its processes without waiting for them
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
