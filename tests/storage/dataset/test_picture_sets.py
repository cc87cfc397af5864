"""Named sets of pictures: numbered, the highest in force, forgotten pictures out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maskmill.storage.dataset.picture_sets import PictureSet, load_set, save_set, set_numbers, shards_of
from maskmill.storage.errors import DamagedObject, InputError, NoSuchThing
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, make_dataset

A, B = "000000001", "000000006"
CHOSEN = PictureSet(name="small", keys=(B, A, B), generation=1, said="", who="ana", created_utc=CREATED)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Ten pictures in shards of four."""
    store = open_store(tmp_path / "data")
    make_dataset(store, str(tmp_path / "photos"))
    return store


def test_the_newest_of_a_name_is_in_force_and_earlier_ones_stay(store: ObjectStore) -> None:
    assert save_set(store, CHOSEN).number == 1
    again = save_set(store, replace(CHOSEN, keys=(B,), said="min_iou=0.9"))
    assert (again.number, load_set(store, "small")) == (2, again)
    assert dict(set_numbers(store)) == {"small": 2}
    assert len(list(store.list("sets/small/"))) == 2
    assert shards_of(store, (A, B)) == {0, 1}


def test_what_is_no_set_is_refused(store: ObjectStore) -> None:
    for name in ("", "Small", "../x", "a b", "x" * 64):
        with pytest.raises(InputError, match="cannot be a set's name"):
            save_set(store, replace(CHOSEN, name=name))
    with pytest.raises(InputError, match="0 pictures"):
        save_set(store, replace(CHOSEN, keys=()))
    with pytest.raises(NoSuchThing, match="no set of pictures 'small'; there are none"):
        load_set(store, "small")
    save_set(store, CHOSEN)
    path = Path(store.root) / "sets/small/000001.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"ana", b"ben"))
    with pytest.raises(DamagedObject, match="not a readable set"):
        load_set(store, "small")
