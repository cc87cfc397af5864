"""A dataset's samples as webdataset has them: dictionaries of bytes, shuffled by a seed, to be gone on with.

    {"__key__": "000000001", "__url__": "s3://bucket/data#3", "jpg": b"...", "json": b"{...}"}

How it works: the order of an epoch follows from the seed, the epoch and the generation's manifest alone,
before anything is read: shards in a drawn order, shared out among the readers, then samples drawn from those
that wait. So a reader that goes on knows what was given already and reads only shards that still hold
something. Where there are fewer shards than readers, each reads all and gives every n-th sample.

It doesn't know what later stages of a pipeline hold back (their own `shuffle`, batches): the state counts
what left here. Let this one shuffle, and nothing is lost or given twice.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset
from webdataset import DataPipeline
from webdataset.compat import FluidInterface

from maskmill.torch_samples import place_of_reader
from maskmill.workers.stages.registry import standing_in

if TYPE_CHECKING:
    from maskmill.dataset import Dataset, Sample

Place = tuple[int, int]
"""A sample: its shard, and its place among the shard's samples that have masks."""


class WebPipeline(DataPipeline, FluidInterface):  # type: ignore[misc]  # webdataset has no types
    """webdataset's pipeline over a dataset: `.decode("rgb8").to_tuple("jpg", "json")` and all others follow.

    Args:
        source: gives the samples.
    """

    def __init__(self, source: WebSamples) -> None:
        super().__init__(source)

    @property
    def source(self) -> WebSamples:
        """What gives the samples."""
        found: WebSamples = self.pipeline[0]
        return found

    def state_dict(self) -> dict[str, Any]:
        """See `WebSamples.state_dict`."""
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `WebSamples.load_state_dict`."""
        self.source.load_state_dict(state)


class WebSamples(IterableDataset[dict[str, Any]]):
    """The samples of a dataset, for one reader: a process, or a data loader's worker.

    Args:
        dataset: to read.
        shuffle: samples that wait to be drawn from, beside shards in another order; 0 keeps key order.
        seed: of the order; each epoch has another.

    Raises:
        ValueError: a negative `shuffle`.
    """

    def __init__(self, dataset: Dataset, *, shuffle: int = 0, seed: int = 0) -> None:
        if shuffle < 0:
            raise ValueError(f"shuffle={shuffle} samples cannot wait: use 0 (in order) or more")
        self._dataset, self._shuffle, self._seed = dataset, shuffle, seed
        self._epoch = self._taken = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of the epoch; the next call begins the next one."""
        reader = place_of_reader()
        given = Counter[int]()
        done = set[Place]()
        order = self._order(reader)
        for place in islice(order, self._taken):
            done.add(place)
            given[place[0]] += 1

        samples = self._read(reader, done, given)
        waiting: dict[Place, Sample] = {}
        for place in order:
            while place not in waiting:
                found, sample = next(samples)
                waiting[found] = sample
            self._taken += 1
            yield self._as_bytes(waiting.pop(place), place[0])
        self._epoch, self._taken = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where this reader stands, as JSON values; torchdata's StatefulDataLoader asks each worker."""
        return {**self._same(), "epoch": self._epoch, "taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` stood.

        Raises:
            ValueError: the state is of another dataset, generation, order or number of readers.
        """
        for name, own in self._same().items():
            if state.get(name) != own:
                raise ValueError(
                    f"this state is of {name}={state.get(name)!r}, here it is {own!r}: the order is "
                    "another; open the same generation with the same settings and readers, or begin again"
                )
        self._epoch, self._taken = int(state["epoch"]), int(state["taken"])

    def set_epoch(self, epoch: int) -> None:
        """Begins an epoch: its order follows from the seed and this number."""
        self._epoch, self._taken = epoch, 0

    def _same(self) -> dict[str, Any]:
        """What makes the order another."""
        part, num_parts = place_of_reader()
        generation = self._dataset.generation
        has_reviews = any(name in generation.columns for name in standing_in())
        whose = self._dataset.prefer if has_reviews else None  # an older state says nothing of it
        return {
            "generation": generation.number,
            "column": self._dataset.column,
            **({} if whose is None else {"prefer": whose}),
            "shuffle": self._shuffle,
            "seed": self._seed,
            "reader": part,
            "readers": num_parts,
        }

    def _shards(self, reader: tuple[int, int]) -> tuple[list[tuple[int, int]], slice]:
        """This reader's shards with their number of samples, in the epoch's order; which of them."""
        part, num_parts = reader
        shards = list(self._dataset.counts.items())
        if self._shuffle:
            random.Random(f"{self._seed} {self._epoch}").shuffle(shards)
        if len(shards) >= num_parts:
            return shards[part::num_parts], slice(0, None, 1)
        return shards, slice(part, None, num_parts)

    def _places(self, reader: tuple[int, int]) -> Iterator[Place]:
        """This reader's samples as they are read."""
        shards, own = self._shards(reader)
        places = ((shard, place) for shard, count in shards for place in range(count))
        return islice(places, own.start, None, own.step)

    def _order(self, reader: tuple[int, int]) -> Iterator[Place]:
        """This reader's samples as they are given."""
        draw = random.Random(f"{self._seed} {self._epoch} {reader[0]} of {reader[1]}")
        waiting: list[Place] = []
        for place in self._places(reader):
            waiting.append(place)
            if len(waiting) > self._shuffle:
                drawn = draw.randrange(len(waiting))
                waiting[drawn], waiting[-1] = waiting[-1], waiting[drawn]
                yield waiting.pop()
        draw.shuffle(waiting)
        yield from waiting

    def _read(
        self, reader: tuple[int, int], done: set[Place], given: Mapping[int, int]
    ) -> Iterator[tuple[Place, Sample]]:
        """This reader's samples that were not given yet; shards that hold none are not read."""
        own = Counter(shard for shard, _ in self._places(reader))
        wanted = set(self._places(reader)) - done
        for shard, _ in self._shards(reader)[0]:
            if given.get(shard, 0) < own[shard]:
                for place, sample in enumerate(self._dataset.samples(shards=[shard])):
                    if (shard, place) in wanted:
                        yield (shard, place), sample

    def _as_bytes(self, sample: Sample, shard: int) -> dict[str, Any]:
        record = json.dumps(sample.record, separators=(",", ":"), ensure_ascii=False).encode()
        found = {
            "__key__": sample.key,
            "__url__": f"{self._dataset.root}#{shard}",
            "jpg": sample.jpeg,
            "json": record,
        }
        return found | ({"txt": sample.caption.encode()} if sample.caption is not None else {})
