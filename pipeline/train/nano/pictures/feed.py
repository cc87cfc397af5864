"""Batches for training: generated scenes drawn ahead by worker processes, photographs cropped on the device.

Each kind of picture fills a pool, from which batches are mixed by shares; a scene's two turns so land in
different batches. On CPU cores, where training processes fill them all, scenes are drawn in between
(`workers=0`); beside a GPU, workers draw ahead.

Shapes: B pictures, S the padded side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from maskmill.pipeline.train.nano.pictures.photo_crops import CropConfig, PhotoStore
from maskmill.pipeline.train.nano.pictures.photo_looks import changed_looks
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig, scene_sample
from maskmill.pipeline.train.pictures import Pictures, together

AHEAD = 8  # pictures of a kind drawn at a time
REGION_CROPS = CropConfig(thick_only=True, min_share=0.0015)
PEOPLE_CROPS = CropConfig(paste_share=0.4)


@dataclass(frozen=True)
class Stream:
    """Which of the endless numbered scenes a process takes.

    Attributes:
        rank: of the process.
        processes: how many there are.
        start: pairs of scenes that earlier runs have used, all processes together.
    """

    rank: int = 0
    processes: int = 1
    start: int = 0


@dataclass(frozen=True)
class FeedConfig:
    """What a batch is mixed of.

    Attributes:
        batch: pictures.
        region_share: of crops of photographs with bottom-up regions.
        people_share: of crops of photographs with people's segments, where there are any.
        workers: processes that draw scenes ahead; 0 draws them when they are needed.
    """

    batch: int = 4
    region_share: float = 0.2
    people_share: float = 0.3
    workers: int = 0

    def __post_init__(self) -> None:
        shares = (self.region_share, self.people_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"region_share, people_share {shares}: use shares that add up to 1 at most")


class SceneStream(IterableDataset[Pictures]):
    """A process's part of the scenes, each scene twice in a row."""

    def __init__(self, stream: Stream, config: SceneConfig) -> None:
        self.stream, self.config = stream, config

    def __iter__(self) -> Iterator[Pictures]:
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.stream.processes * parts
        first = self.stream.start + self.stream.rank * parts + part
        for pair in count(first, step):
            for turn in range(2):
                yield scene_sample(2 * pair + turn, self.config)


class Feed:
    """Mixes batches without end.

    Args:
        config: the mixture.
        regions: photographs with bottom-up regions.
        people: photographs with people's segments; None leaves their share to the scenes.
        stream: which scenes.
        generator: of the device that batches are wanted on.
    """

    def __init__(
        self,
        config: FeedConfig,
        regions: PhotoStore,
        people: PhotoStore | None,
        stream: Stream,
        generator: torch.Generator,
    ) -> None:
        self._config, self._stream, self._generator = config, stream, generator
        self._stores = (None, regions, people)
        self._pools: tuple[list[Pictures], ...] = ([], [], [])
        self._side, self._scenes, self._taken = 0, iter(()), 0

    def take(self, side: int) -> Pictures:
        """A batch of pictures of a side, on the generator's device."""
        if side != self._side:
            self._restart(side)
        kinds = self._kinds()
        parts = [self._pop(kind) for kind in kinds]
        return together(parts)

    def _restart(self, side: int) -> None:
        """Pictures of another size from now on."""
        self._side = side
        self._pools = ([], [], [])
        used = Stream(self._stream.rank, self._stream.processes, self._stream.start + self._taken // 2)
        scenes = SceneStream(used, SceneConfig(side))
        self._scenes = iter(DataLoader(scenes, batch_size=None, num_workers=self._config.workers))

    def _kinds(self) -> list[int]:
        """For each place of the batch 0 for a scene, 1 for regions, 2 for people's segments."""
        drawn = torch.rand(self._config.batch, generator=self._generator, device=self._generator.device)
        people = self._config.people_share if self._stores[2] is not None else 0.0
        is_people, is_region = drawn < people, drawn >= 1 - self._config.region_share
        return (2 * is_people + is_region.int()).tolist()

    def _pop(self, kind: int) -> Pictures:
        pool = self._pools[kind]
        while len(pool) < AHEAD // 2:
            self._fill(kind)
        place = int(torch.randint(len(pool), (), generator=self._generator, device=self._generator.device))
        return pool.pop(place)

    def _fill(self, kind: int) -> None:
        store = self._stores[kind]
        if store is None:
            drawn = [next(self._scenes).to(self._generator.device) for _ in range(AHEAD)]
            self._taken += AHEAD * self._stream.processes
            self._pools[kind].extend(drawn)
            return
        crops = PEOPLE_CROPS if kind == 2 else REGION_CROPS
        some = changed_looks(store.draw(AHEAD, self._side, crops, self._generator), self._generator)
        self._pools[kind].extend(some.pick(slice(i, i + 1)) for i in range(len(some)))
