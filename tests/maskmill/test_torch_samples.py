"""Every sample comes once an epoch, whoever reads: one process, several workers, several ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import maskmill
from tests.workers.published import Published


@pytest.fixture
def dataset(published: Published) -> maskmill.Dataset:
    return maskmill.open(published.store.root)


def key_of(sample: maskmill.Sample) -> str:
    return sample.key


def test_samples_are_tensors(dataset: maskmill.Dataset) -> None:
    for sample, found in zip(dataset, dataset.to_torch(), strict=True):
        height, width = sample.image.shape[:2]
        assert found["key"] == sample.key
        assert found["image"].shape == (3, height, width) and found["image"].dtype == torch.uint8
        assert (found["image"].permute(1, 2, 0).numpy() == sample.image).all()
        assert found["masks"].shape == (len(sample.masks), height, width)
        assert found["masks"].dtype == torch.bool
        assert found["boxes_xyxy"].shape == (len(sample.masks), 4)
        assert found["scores"].tolist() == pytest.approx(sample.masks.predicted_iou.tolist())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than a small machine has CPUs
@pytest.mark.parametrize("num_workers", [0, 2, 4])
@pytest.mark.parametrize("shuffle", [0, 3])
def test_workers_share_the_samples(dataset: maskmill.Dataset, num_workers: int, shuffle: int) -> None:
    """Two workers share out the three shards; of four, each takes every fourth sample."""
    samples = dataset.to_torch(key_of, shuffle=shuffle)
    loader: DataLoader[str] = DataLoader(samples, batch_size=None, num_workers=num_workers)
    assert sorted(loader) == [sample.key for sample in dataset]


@pytest.mark.parametrize("world", [2, 5])
def test_ranks_share_the_samples(
    dataset: maskmill.Dataset, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    found: list[str] = []
    for rank in range(world):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        found += dataset.to_torch(key_of, shuffle=2)
    assert sorted(found) == [sample.key for sample in dataset]


def test_shuffling_follows_torchs_seed_and_changes_by_epoch(dataset: maskmill.Dataset) -> None:
    samples = dataset.to_torch(key_of, shuffle=4)

    def epochs(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        return [list(samples) for _ in range(3)]

    assert epochs(1) == epochs(1) != epochs(2)
    first, second, _ = epochs(1)
    assert first != second and sorted(first) == sorted(second)


def test_a_negative_shuffle_is_refused(dataset: maskmill.Dataset) -> None:
    with pytest.raises(ValueError, match="shuffle=-1 samples cannot wait"):
        dataset.to_torch(shuffle=-1)
