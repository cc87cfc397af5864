"""Batches: mixed by shares, of the wanted side, no scene by two processes, drawn ahead by workers too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskmill.pipeline.train.nano.pictures.feed import Feed, FeedConfig, SceneStream, Stream
from maskmill.pipeline.train.nano.pictures.photo_crops import LabelledPhoto, PhotoStore
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig

CPU = torch.device("cpu")


def _store(maps: int) -> PhotoStore:
    rng = np.random.default_rng(maps)
    labels = np.zeros((maps, 60, 60), np.int32)
    labels[:, 10:50, 10:50] = 1
    return PhotoStore([LabelledPhoto(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8), labels)], CPU)


def _feed(config: FeedConfig, seed: int = 0) -> Feed:
    return Feed(config, _store(3), _store(1), Stream(), torch.Generator().manual_seed(seed))


def test_batches_have_the_wanted_side_and_number() -> None:
    feed = _feed(FeedConfig(batch=3))
    for side in (64, 96):
        batch = feed.take(side)
        assert batch.image_B3SS.shape == (3, 3, side, side)
        assert batch.solid_BNss().flatten(1).any(1).all()


@pytest.mark.parametrize(("regions", "people"), [(1.0, 0.0), (0.0, 1.0)])
def test_a_share_of_one_is_all_there_is(regions: float, people: float) -> None:
    feed = _feed(FeedConfig(batch=4, region_share=regions, people_share=people))
    feed._scenes = iter(())  # a scene would be missed
    assert len(feed.take(64)) == 4
    assert not feed._pools[0]


def test_processes_and_workers_share_the_scenes() -> None:
    def pairs(rank: int, processes: int) -> set[bytes]:
        scenes = iter(SceneStream(Stream(rank, processes, start=4), SceneConfig(64)))
        return {next(scenes).image_B3SS.numpy().tobytes() for _ in range(4)}

    assert len(pairs(0, 1)) >= 3
    assert not pairs(0, 2) & pairs(1, 2)


def test_workers_draw_ahead() -> None:
    feed = _feed(FeedConfig(batch=2, region_share=0.0, people_share=0.0, workers=1))
    assert len(feed.take(64)) == 2


def test_shares_above_one_are_named() -> None:
    with pytest.raises(ValueError, match=r"region_share, people_share \(0.7, 0.5\)"):
        FeedConfig(region_share=0.7, people_share=0.5)
