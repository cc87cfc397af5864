"""`maskmill.open` reads what was published: samples joined, tables, one generation whatever others do."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import maskmill
from maskmill.storage.dataset.generations import Publication, publish_over
from maskmill.storage.dataset.row_set import RowSet
from maskmill.storage.dataset.tags import set_tag
from maskmill.storage.errors import DatasetError, InputError, ObjectNotFound
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.images.codec import decode_image
from tests.workers.published import CAPTION, HOSTILE_NAME, NUM_ANNOTATED, Published, publish_dataset


@pytest.fixture
def dataset(published: Published) -> maskmill.Dataset:
    return maskmill.open(published.store.root)


def test_every_annotated_image_comes_once_in_key_order(dataset: maskmill.Dataset) -> None:
    samples = list(dataset)
    keys = [sample.key for sample in samples]
    assert len(dataset) == len(samples) == NUM_ANNOTATED
    assert keys == sorted(set(keys))
    for sample in samples:
        info = sample.record["image"]
        assert sample.image.shape == (info["height"], info["width"], 3)
        assert sample.masks.to_numpy().shape[1:] == sample.image.shape[:2]
        assert (decode_image(sample.jpeg) == sample.image).all()
    assert sum(len(sample.masks) for sample in samples) == len(dataset.table("masks"))


def test_a_turned_photograph_is_upright(dataset: maskmill.Dataset) -> None:
    (turned,) = [sample for sample in dataset if (sample.source or "").endswith("turned.jpg")]
    assert turned.image.shape == (64, 48, 3)
    assert turned.masks.show().size == (48, 64)


def test_what_came_with_an_image_is_there(dataset: maskmill.Dataset) -> None:
    (found,) = [sample for sample in dataset if (sample.source or "").endswith(HOSTILE_NAME)]
    assert found.caption == CAPTION
    assert found.key in repr(found)


def test_a_key_is_a_way_in(dataset: maskmill.Dataset) -> None:
    last = list(dataset)[-1]
    found = dataset[last.key]
    assert found.record == last.record and (found.image == last.image).all()
    for absent in ("999999999", "no key"):
        with pytest.raises(KeyError, match=absent):
            dataset[absent]


def test_parts_are_read_apart_and_without_pictures(dataset: maskmill.Dataset) -> None:
    keys = [sample.key for sample in dataset]
    apart = [[sample.key for sample in dataset.samples(shards=[shard])] for shard in dataset.shards]
    assert len(apart) == 3 and [key for part in apart for key in part] == keys
    (first, *_) = dataset.samples(pictures=False)
    assert first.source is None and first.caption is None
    assert len(first.masks) == len(dataset[first.key].masks)


def test_tables_are_data_frames(dataset: maskmill.Dataset) -> None:
    assert dataset.tables == ("images", "shards", "masks", "saves")
    frame = dataset.to_pandas()
    samples = {sample.key: sample.masks for sample in dataset}
    assert frame.groupby("key").size().to_dict() == {key: len(each) for key, each in samples.items() if each}
    areas = [mask.area_px for masks in samples.values() for mask in masks]
    assert sorted(frame["area_px"]) == sorted(areas)
    images = dataset.to_pandas("images")
    assert set(frame["key"]) < set(images["key"]) and images["source"].str.endswith("broken.jpg").any()
    assert dataset.to_pandas("shards")["num_written"].sum() > 0
    with pytest.raises(InputError, match="no table 'mask'; there are images, shards, masks"):
        dataset.to_pandas("mask")


def test_without_pandas_the_error_names_the_install(
    dataset: maskmill.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        dataset.to_pandas()


def test_generations_by_number_and_tag_stay_what_they_were(tmp_path: Path) -> None:
    published = publish_dataset(tmp_path)
    store, first = published.store, published.generation
    facts = {"columns": first.columns, "settings": {}, "models": {}, "totals": {}}
    fewer = RowSet.of(store, (row for row in first.rows() if row.shard == 0))
    opened = maskmill.open(store.root)
    second = publish_over(store, lambda _: Publication(fewer, facts), "2025-01-02", made_by="test")
    set_tag(store, "best", 1, created_utc="2025-01-02")

    assert len(opened) == NUM_ANNOTATED
    assert maskmill.open(store.root).generation == second
    assert len(maskmill.open(store.root)) == first.rows()[0].num_written
    assert maskmill.open(store.root, generation="best").generation.number == 1
    assert len(list(maskmill.open(store.root, generation=1))) == NUM_ANNOTATED
    assert maskmill.open(store.root).to_pandas("images")["shard"].unique().tolist() == [0]
    with pytest.raises(ObjectNotFound, match="no generation 7; there are"):
        maskmill.open(store.root, generation=7)
    with pytest.raises(DatasetError, match="'worst' is no generation"):
        maskmill.open(store.root, generation="worst")


def test_nothing_to_read_is_said_at_once(tmp_path: Path, published: Published) -> None:
    with pytest.raises(DatasetError, match="holds no generation: is the path right"):
        maskmill.open(tmp_path)
    with pytest.raises(DatasetError, match="has no given"):
        maskmill.open(published.store.root, column="given")


def test_a_dataset_and_its_samples_travel(dataset: maskmill.Dataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy == dataset
    sample = pickle.loads(pickle.dumps(next(iter(copy))))
    assert np.asarray(sample.masks.show()).shape == sample.image.shape


def test_a_dataset_on_s3_is_read_the_same(published: Published, s3_bucket: str) -> None:
    store = open_store(f"{s3_bucket}/data")
    for info in published.store.list():
        store.put(info.name, published.store.read(info.name))
    there, here = maskmill.open(store.root), maskmill.open(published.store.root)
    assert [sample.record for sample in there] == [sample.record for sample in here]
    assert (next(iter(there)).image == next(iter(here)).image).all()
    assert there.to_pandas().equals(here.to_pandas())
    assert there.to_pandas("images").equals(here.to_pandas("images"))
