"""Names for generations: set, moved, taken away, refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from maskmill.storage.dataset.generations import publish
from maskmill.storage.dataset.tags import resolve, set_tag, tag_history, tags
from maskmill.storage.errors import DamagedObject, DatasetError, InputError, ObjectNotFound, Overtaken
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, IMAGES, commit_images, plan_pictures


@pytest.fixture
def two(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """A dataset of two generations."""
    folder = tmp_path_factory.mktemp("tags")
    store = open_store(folder / "data")
    plan_pictures(store, str(folder / "photos"), 5)
    for shard in range(2):
        commit_images(store, shard)
        publish(store, {"images": IMAGES}, settings={}, models={}, totals={}, created_utc=CREATED)
    return store


def test_a_tag_is_set_moved_and_taken_away_and_keeps_its_history(two: ObjectStore) -> None:
    assert tags(two) == {}
    set_tag(two, "best", 1, created_utc=CREATED, note="looked at")
    set_tag(two, "paper-v1", 1, created_utc=CREATED)
    assert {name: tag.generation for name, tag in tags(two).items()} == {"best": 1, "paper-v1": 1}
    set_tag(two, "best", 2, created_utc=CREATED)
    assert resolve(two, "best") == 2
    set_tag(two, "best", None, created_utc=CREATED)
    assert set(tags(two)) == {"paper-v1"}
    assert [tag.generation for tag in tag_history(two, "best")] == [1, 2, None]
    with pytest.raises(DatasetError, match="no tag 'best'"):
        set_tag(two, "best", None, created_utc=CREATED)


@pytest.mark.parametrize("name", ["", "12", "latest", "Best", "a/b", "../x", "-a", "x" * 64])
def test_names_that_could_be_taken_for_something_else_are_refused(two: ObjectStore, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a tag"):
        set_tag(two, name, 1, created_utc=CREATED)


def test_a_tag_names_what_is_there(two: ObjectStore) -> None:
    with pytest.raises(ObjectNotFound, match="no generation 9"):
        set_tag(two, "best", 9, created_utc=CREATED)
    assert (resolve(two, "latest"), resolve(two, "2")) == (None, 2)
    with pytest.raises(DatasetError, match="there are none"):
        resolve(two, "best")


def test_of_writers_at_once_each_leaves_a_record_or_is_told(two: ObjectStore) -> None:
    def move(i: int) -> str | None:
        try:
            return set_tag(two, "best", 1 + i % 2, created_utc=f"t{i}").created_utc
        except Overtaken:
            return None

    with ThreadPoolExecutor(8) as threads:
        moved = {one for one in threads.map(move, range(8)) if one}
    assert moved and {tag.created_utc for tag in tag_history(two, "best")} == moved


def test_a_damaged_tag_says_so(two: ObjectStore) -> None:
    set_tag(two, "best", 1, created_utc=CREATED)
    two.put("tags/best/000002.json", b"{}")
    with pytest.raises(DamagedObject, match="not a readable tag"):
        tags(two)
