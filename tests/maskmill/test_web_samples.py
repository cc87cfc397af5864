"""webdataset's pipeline over a dataset: every sample once, the same order again, gone on with anywhere."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import maskmill
from maskmill.web_samples import WebSamples
from tests.workers.published import Published, publish_dataset

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def dataset(published: Published) -> maskmill.Dataset:
    return maskmill.open(published.store.root)


def keys(samples: Any) -> list[str]:
    return [sample["__key__"] for sample in samples]


def test_samples_are_webdatasets_and_its_stages_follow(dataset: maskmill.Dataset) -> None:
    for ours, found in zip(dataset, dataset.webdataset(), strict=True):
        assert found["__key__"] == ours.key and found["jpg"] == ours.jpeg
        assert json.loads(found["json"]) == ours.record
        assert found.get("txt", b"").decode() == (ours.caption or "")
        assert found["__url__"].startswith(dataset.root)
    decoded = list(dataset.webdataset().decode("rgb8").to_tuple("__key__", "jpg", "json"))
    assert [key for key, _, _ in decoded] == [sample.key for sample in dataset]
    assert all(
        (image == np.asarray(Image.open(io.BytesIO(s.jpeg)).convert("RGB"))).all()
        for s, (_, image, _) in zip(dataset, decoded, strict=True)
    )


@pytest.mark.parametrize("shuffle", [0, 1, 3, 100])
def test_each_sample_comes_once_an_epoch_and_epochs_differ(dataset: maskmill.Dataset, shuffle: int) -> None:
    pipeline = dataset.webdataset(shuffle=shuffle, seed=1)
    epochs = [keys(pipeline) for _ in range(3)]
    expected = [sample.key for sample in dataset]
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert (epochs[0] == expected) is (shuffle == 0)
    assert (epochs[0] != epochs[1]) is (shuffle > 0)
    again = dataset.webdataset(shuffle=shuffle, seed=1)
    assert [keys(again) for _ in range(3)] == epochs
    if shuffle:
        assert keys(dataset.webdataset(shuffle=shuffle, seed=2)) != epochs[0]


@pytest.mark.parametrize("shuffle", [0, 2, 100])
@pytest.mark.parametrize("taken", range(10))
def test_it_goes_on_where_it_stood(dataset: maskmill.Dataset, shuffle: int, taken: int) -> None:
    whole = dataset.webdataset(shuffle=shuffle, seed=5)
    epochs = keys(whole) + keys(whole)
    first = dataset.webdataset(shuffle=shuffle, seed=5)
    keys(first)  # an epoch before
    begun = iter(first)
    given = [next(begun)["__key__"] for _ in range(min(taken, 9))]
    state = json.loads(json.dumps(first.state_dict()))
    second = dataset.webdataset(shuffle=shuffle, seed=5)
    second.load_state_dict(state)
    assert given + keys(second) == epochs[9:]


def test_going_on_reads_only_shards_that_still_hold_something(
    dataset: maskmill.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WebSamples(dataset)
    begun = iter(source)
    for _ in range(6):
        next(begun)
    state, read = source.state_dict(), []
    plain = maskmill.Dataset.samples

    def counted(self: maskmill.Dataset, *, shards: Any = None, pictures: bool = True) -> Any:
        read.extend(shards)
        return plain(self, shards=shards, pictures=pictures)

    monkeypatch.setattr(maskmill.Dataset, "samples", counted)
    again = WebSamples(dataset)
    again.load_state_dict(state)
    assert len(list(again)) == 3
    assert len(read) < len(dataset.shards)


def test_a_state_of_another_order_is_refused(dataset: maskmill.Dataset) -> None:
    state = dataset.webdataset(shuffle=2, seed=5).state_dict()
    with pytest.raises(ValueError, match="seed=5, here it is 6"):
        dataset.webdataset(shuffle=2, seed=6).load_state_dict(state)
    with pytest.raises(ValueError, match="shuffle=-1"):
        dataset.webdataset(shuffle=-1)


@pytest.mark.parametrize(("num_workers", "shuffle"), [(2, 3), (4, 0)])
def test_workers_share_the_samples(dataset: maskmill.Dataset, num_workers: int, shuffle: int) -> None:
    loader: DataLoader[Any] = DataLoader(
        dataset.webdataset(shuffle=shuffle), batch_size=None, num_workers=num_workers
    )
    assert sorted(keys(loader)) == [sample.key for sample in dataset]


@pytest.mark.parametrize("world", [2, 5])
def test_ranks_share_the_samples_and_shuffle_alike(
    dataset: maskmill.Dataset, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    found: list[str] = []
    for rank in range(world):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        found += keys(dataset.webdataset(shuffle=2))
    assert sorted(found) == [sample.key for sample in dataset]


def test_webdataset_reads_tars_from_a_bucket(s3_bucket: str, tmp_path: Any) -> None:
    import webdataset

    from maskmill.workers.exports.export import export

    data = publish_dataset(tmp_path)
    report = export(data.store, data.generation, f"{s3_bucket}/export", format="sa1b", max_images=4)
    maskmill.register_s3()
    urls = f"{s3_bucket}/export/sa_{{000000..000002}}.tar"
    found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(found) == report.num_images
    ours = maskmill.open(data.store.root)
    assert [sample["jpg"] for sample in found] == [sample.jpeg for sample in ours]
    with pytest.raises(ValueError, match="read only"):
        webdataset.gopen(f"{s3_bucket}/new.tar", "wb")
