"""A dataset's samples for torch's data loaders: streamed, shared out, shuffled, transformed in the workers.

Shards are shared out among all workers of all ranks, so that nobody reads another's bytes; where there are
fewer shards than workers, each reads all and takes every n-th sample. Either way each sample comes once an
epoch. Ranks may get unequal numbers of samples. Shuffling draws from torch's own randomness
(`torch.manual_seed`), anew each epoch; it is an `IterableDataset` because tars are read from front to back.

It doesn't know batches: images differ in size and number of masks, so crop or collate as training needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch.utils.data import IterableDataset, get_worker_info

if TYPE_CHECKING:
    from maskmill.dataset import Dataset, Sample

T = TypeVar("T")


class TorchSamples(IterableDataset[T], Generic[T]):
    """The samples of a dataset, transformed.

    Args:
        dataset: to read.
        transform: what becomes of a sample.
        shuffle: samples that wait to be drawn from; 0 keeps key order.

    Raises:
        ValueError: a negative `shuffle`.
    """

    def __init__(self, dataset: Dataset, transform: Callable[[Sample], T], *, shuffle: int = 0) -> None:
        if shuffle < 0:
            raise ValueError(f"shuffle={shuffle} samples cannot wait: use 0 (in order) or more")
        self._dataset, self._transform, self._shuffle = dataset, transform, shuffle

    def __iter__(self) -> Iterator[T]:
        part, num_parts = place_of_reader()
        shards = list(self._dataset.shards)
        own = shards[part::num_parts] if len(shards) >= num_parts else shards
        stride = slice(0, None, 1) if len(shards) >= num_parts else slice(part, None, num_parts)
        draw = random.Random(int(torch.empty((), dtype=torch.int64).random_().item()))

        # Another order of shards would change who takes which sample where all read all
        if self._shuffle and len(shards) >= num_parts:
            draw.shuffle(own)
        samples = islice(self._dataset.samples(shards=own), stride.start, None, stride.step)
        for sample in _drawn(samples, self._shuffle, draw):
            yield self._transform(sample)


def to_tensors(sample: Sample) -> dict[str, Any]:
    """A sample as tensors.

    Returns:
        `key`; `image`: uint8[3, H, W], RGB; `masks`: bool[N, H, W]; `boxes_xyxy`: float32[N, 4] in px,
        corners included; `scores`: float32[N], predicted IoU; `names`: a word or None for each mask.
    """
    masks = sample.masks
    return {
        "key": sample.key,
        "image": torch.from_numpy(sample.image.copy()).permute(2, 0, 1),
        "masks": torch.from_numpy(masks.to_numpy()),
        "boxes_xyxy": torch.from_numpy(masks.boxes_xyxy).float(),
        "scores": torch.from_numpy(masks.predicted_iou).float(),
        "names": masks.names,
    }


def place_of_reader() -> tuple[int, int]:
    """Which of how many readers this process is, over the workers of all ranks."""
    worker = get_worker_info()
    number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return rank * count + number, world * count
    return number, count


def _drawn(samples: Iterator[Sample], num_waiting: int, draw: random.Random) -> Iterator[Sample]:
    """The samples, each drawn from up to `num_waiting` that wait; undecoded, so they wait cheaply."""
    waiting: list[Sample] = []
    for sample in samples:
        waiting.append(sample)
        if len(waiting) > num_waiting:
            place = draw.randrange(len(waiting))
            waiting[place], waiting[-1] = waiting[-1], waiting[place]
            yield waiting.pop()
    draw.shuffle(waiting)
    yield from waiting
