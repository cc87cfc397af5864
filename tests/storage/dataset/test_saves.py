"""Saves: kept under the next number, which is in force, which stand beside, and that none is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from maskmill.storage.care.forget import forget
from maskmill.storage.dataset.saves import (
    Base,
    Save,
    put_save,
    read_save,
    read_standings,
    save_name,
    saved_numbers,
    saves_of,
    standing_of,
)
from maskmill.storage.errors import DamagedObject, InputError, ObjectNotFound, Recalled
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, commit_images, plan_pictures

KEY = "000000001"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A dataset of five planned pictures."""
    opened = open_store(tmp_path / "data")
    plan_pictures(opened, str(tmp_path / "photos"), 5)
    return opened


def save(save_id: str, *saves: int, key: str = KEY, who: str = "Ana") -> Save:
    """A save of one mask that names itself."""
    return Save(
        key=key,
        save_id=save_id,
        who=who,
        made_by="person",
        tool="page",
        created_utc=CREATED,
        seconds=12.5,
        clicks=3,
        base=Base(generation=1, column="masks", saves=saves),
        finished=True,
        image={"image_id": 1, "width": 4, "height": 3},
        annotations=({"id": 100000, "label": save_id},),
        rejected=(100007,),
    )


def test_a_save_is_kept_as_it_was_and_later_ones_take_its_place(store: ObjectStore) -> None:
    first = put_save(store, save("a"))
    assert first == replace(save("a"), number=1)
    assert read_save(store, KEY, 1) == first
    second = put_save(store, save("b", 1))
    third = put_save(store, save("c", 2))
    assert (second.earlier, third.earlier) == ((1,), (1, 2))
    found = standing_of(store, KEY)
    assert (found.in_force, found.beside, found.numbers) == (third, (), (3,))
    assert [one.save_id for one in saves_of(store, KEY)] == ["a", "b", "c"]
    assert saved_numbers(store) == {KEY: (1, 2, 3)}


def test_who_began_from_something_older_stands_beside_until_both_were_seen(store: ObjectStore) -> None:
    put_save(store, save("first"))
    put_save(store, save("ana", 1, who="Ana"))
    late = put_save(store, save("ben", 1, who="Ben"))
    assert late.number == 3, "nothing is lost"
    found = standing_of(store, KEY)
    assert found.in_force is not None and found.in_force.who == "Ana"
    assert [one.who for one in found.beside] == ["Ben"]
    assert found.numbers == (2, 3)

    later = put_save(store, save("ben again", 3, who="Ben"))  # goes on with his own
    found = standing_of(store, KEY)
    assert found.in_force is not None and found.in_force.who == "Ana"
    assert found.beside == (later,), "of those beside, the newest of each"

    both = put_save(store, save("both", 2, 4))
    found = standing_of(store, KEY)
    assert (found.in_force, found.beside) == (both, ())
    assert both.earlier == (1, 2, 3, 4)


def test_a_file_that_knows_of_no_save_covers_none(store: ObjectStore) -> None:
    ana = put_save(store, save("ana"))
    put_save(store, save("file"))
    assert standing_of(store, KEY).in_force == ana


def test_the_same_work_is_one_save_however_often_it_is_put(store: ObjectStore) -> None:
    put_save(store, save("zero"))
    assert put_save(store, save("a", 1)).number == 2
    put_save(store, save("b", 2))
    assert put_save(store, save("a", 1)).number == 2, "its answer was lost, and it was tried again"
    assert put_save(store, save("b", 2, 3)).number == 3, "it was even told its number, and tried again"
    assert saved_numbers(store) == {KEY: (1, 2, 3)}


def test_many_at_once_lose_nothing(store: ObjectStore) -> None:
    put_save(store, save("start"))
    with ThreadPoolExecutor(6) as threads:
        kept = list(threads.map(lambda n: put_save(store, save(f"n{n}", 1)), range(12)))
    assert sorted(one.number for one in kept) == list(range(2, 14))
    assert {one.save_id for one in saves_of(store, KEY)} == {"start", *(f"n{n}" for n in range(12))}
    found = standing_of(store, KEY)
    assert found.in_force is not None and found.in_force.number == 2
    assert len(found.beside) == 11


def test_pictures_are_read_together(store: ObjectStore) -> None:
    for key in ("000000003", KEY):
        put_save(store, save(f"of {key}", key=key))
    found = dict(read_standings(store, saved_numbers(store)))
    assert list(found) == [KEY, "000000003"]
    assert found["000000003"].in_force == replace(save("of 000000003", key="000000003"), number=1)
    assert standing_of(store, "000000002").in_force is None


def test_what_cannot_be_saved_is_said(store: ObjectStore) -> None:
    with pytest.raises(InputError, match="000000099"):
        put_save(store, save("a", key="000000099"))
    with pytest.raises(InputError, match="has no save 4 to begin from"):
        put_save(store, save("a", 4))
    assert saved_numbers(store) == {}


def test_damage_is_seen(store: ObjectStore) -> None:
    put_save(store, save("a"))
    name = save_name(KEY, 1)
    whole = store.read(name)
    store.put(name, whole.replace(b'"clicks":3', b'"clicks":4'))
    with pytest.raises(DamagedObject, match=r"000001\.json: not a readable save .*seal is broken"):
        standing_of(store, KEY)
    store.put(save_name(KEY, 2), whole)
    with pytest.raises(DamagedObject, match="says it is save 1 of 000000001"):
        read_save(store, KEY, 2)
    with pytest.raises(ObjectNotFound):
        read_save(store, KEY, 9)


def test_forgotten_pictures_have_no_saves_and_get_none(store: ObjectStore) -> None:
    commit_images(store, 0)
    put_save(store, save("a", key="000000002"))
    put_save(store, save("b"))
    forget(store, ["000000002"], created_utc=CREATED)
    assert saved_numbers(store) == {KEY: (1,)}, "only the forgotten picture's are removed"
    with pytest.raises(Recalled, match="was forgotten"):
        put_save(store, save("late", key="000000002"))
    assert saved_numbers(store) == {KEY: (1,)}
