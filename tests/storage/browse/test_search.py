"""A search through a generation: shards asked in order and only as far as needed, orders over all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from maskmill.storage.browse.catalogue import Catalogue
from maskmill.storage.browse.filters import Filters, check_where, needs_of, order_of
from maskmill.storage.browse.gain import GAIN
from maskmill.storage.browse.search import Search
from maskmill.storage.browse.statement import statement
from maskmill.storage.dataset.picture_sets import PictureSet, save_set
from maskmill.storage.dataset.record_rows import WHOLE
from maskmill.storage.errors import DamagedObject, DatasetError, InputError, NoSuchThing
from maskmill.storage.query.query import QueryError
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, make_dataset


class Watched(Catalogue):
    """A catalogue that says which shards were asked."""

    asked: list[int]

    def images(self, shards: Sequence[int], keys: Collection[str] | None = None) -> Any:
        self.asked = [*getattr(self, "asked", []), *shards]
        return super().images(shards, keys)


@pytest.fixture
def catalogue(tmp_path: Path) -> Watched:
    """Ten pictures of one mask each, in shards of four."""
    store = open_store(tmp_path / "data")
    return Watched(store, make_dataset(store, str(tmp_path / "photos")), rows_for=lambda column: WHOLE)


def test_a_page_in_order_asks_no_shard_behind_it(catalogue: Watched) -> None:
    search = Search(catalogue, Filters())
    page = search.page("key", 0, 3, wait_s=30)
    assert [one.key for one in page.pictures] == ["000000001", "000000002", "000000003"]
    assert catalogue.asked == [0] and not page.complete and page.searched == pytest.approx(1 / 3)
    assert search.page("key", 3, 20, wait_s=30).complete
    assert catalogue.asked == [0, 1, 2]


def test_another_order_asks_all_and_each_shard_once(catalogue: Watched) -> None:
    search = Search(catalogue, Filters())
    assert len(search.keys("hardest")) == 10
    assert sorted(search.keys("random", seed=1)) == search.keys("key")
    assert search.keys("random", seed=1) != search.keys("random", seed=2)
    assert search.keys("key", most=2) == ["000000001", "000000002"]
    assert sorted(catalogue.asked) == [0, 1, 2]


class Labelled(Watched):
    """A catalogue whose pictures all show a wall, every other one a door, and the seventh a key."""

    def words(self, shards: Sequence[int]) -> list[Any]:
        keys = [str(key) for key in super().images(shards)["key"].to_pylist()]
        rows = [(key, "wall") for key in keys] + [(key, "Wall") for key in keys]
        rows += [(key, "door") for key in keys if int(key) % 2] + [
            (key, "key") for key in keys if int(key) == 7
        ]
        rows += [(key, None) for key in keys]
        return [pa.table({"key": [key for key, _ in rows], "label": [word for _, word in rows]})]


def test_by_rarity_a_picture_counts_more_by_its_rarest_label(catalogue: Watched) -> None:
    labelled = Labelled(catalogue.store, catalogue.generation, rows_for=lambda column: WHOLE)
    order = "most gain by rarity"
    search = Search(labelled, Filters(), needs_of(order))
    keys = search.keys(order)
    assert keys[:3] == ["000000002", "000000006", "000000007"], "no masks, no gain that could be told"
    assert [int(key) % 2 for key in keys[3:]] == [1, 1, 1, 1, 0, 0, 0]
    assert sorted(keys) == search.keys("key") and keys != search.keys("most gain")


def test_a_gain_is_reckoned_for_the_orders_that_need_it_alone(catalogue: Watched) -> None:
    tables = {"masks": ("key", "annotation_id"), "images": ("key",)}
    assert GAIN in statement(Filters(), tables, needs_of("most gain")).sql
    assert all(GAIN not in statement(Filters(), tables, needs_of(sort)).sql for sort in ("key", "hardest"))
    assert needs_of("most gain by rarity") == {"gain", "labels"}
    with pytest.raises(AssertionError, match="begun without"):
        Search(catalogue, Filters()).keys("most gain")


def test_a_closed_search_gives_what_it_had(catalogue: Watched) -> None:
    search = Search(catalogue, Filters())
    search.page("key", 0, 3, wait_s=30)
    search.close()
    assert search.page("key", 0, 20, wait_s=0.1).found == 4
    assert catalogue.asked == [0]


def test_damage_is_told_and_not_passed_over(catalogue: Watched) -> None:
    row = catalogue.row(1, "masks")
    assert row is not None and row.index is not None
    catalogue.store.delete(row.index.name)
    catalogue.store.put(row.index.name, b"PAR1 nonsense PAR1")
    search = Search(catalogue, Filters())
    with pytest.raises(DamagedObject):
        search.keys("key")
    with pytest.raises(DamagedObject):
        search.page("key", 0, 3, wait_s=30)


def test_an_error_of_our_own_is_no_empty_page(catalogue: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(shards: Sequence[int]) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(catalogue, "masks", broken)
    monkeypatch.setattr("threading.excepthook", lambda seen: None)
    with pytest.raises(Exception, match="error of maskmill's own"):
        Search(catalogue, Filters()).page("key", 0, 3, wait_s=30)


def test_a_generation_without_masks_has_pictures_and_no_masks(tmp_path: Path) -> None:
    store = open_store(tmp_path / "data")
    generation = make_dataset(store, str(tmp_path / "photos"))
    with pytest.raises(DatasetError, match="no column 'given'; it has images, masks"):
        Catalogue(store, generation, rows_for=lambda column: WHOLE, column="given")


@pytest.mark.parametrize(
    "where", ["1 = 1", "source like '%;%'", "(area_px > 1) or true -- why not", "area_px in (1, 2)"]
)
def test_one_condition_is_one(where: str) -> None:
    check_where(where)


@pytest.mark.parametrize(
    "where",
    ["1 = 1; drop table found", "area_px >", "1) or (1 = 1", ") union select 1 --", "select 1 from masks;"],
)
def test_what_is_more_or_less_than_a_condition_is_refused(where: str) -> None:
    with pytest.raises(QueryError):
        check_where(where)


def test_values_that_mean_nothing_are_refused() -> None:
    for wrong in ({"level": "top"}, {"made_by": "me"}, {"min_iou": float("nan")}, {"where": "("}):
        with pytest.raises(InputError):
            Filters(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown: use one of key, random, hardest"):
        order_of("best")


@pytest.mark.parametrize(
    "says_complete",
    [
        lambda search: search.page("key", 0, 3, wait_s=30).complete,
        lambda search: search.keys_so_far("key", most=3, wait_s=30)[1],
    ],
)
def test_an_answer_that_says_it_is_complete_has_all(
    catalogue: Watched, says_complete: Callable[[Search], bool]
) -> None:
    """The search ends while the answer's rows are read."""
    search = Search(catalogue, Filters())

    class Slow:
        """The search's connection; it gives rows as they were before the last shards were asked."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def cursor(self) -> Any:
            return Slow(self._inner.cursor())

        def execute(self, sql: str, *values: Any) -> Any:
            found = self._inner.execute(sql, *values)
            if "order by" in sql and not search._is_complete():
                rows = found.fetchall()
                search._connection = self._inner
                search.keys("hardest")
                found = type("Rows", (), {"fetchall": lambda self: rows})()
            return found

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    search.page("key", 0, 3, wait_s=30)
    search._connection = Slow(search._connection)
    is_complete = says_complete(search)
    assert search._is_complete() and not is_complete


def test_a_saved_set_asks_its_shards_alone(catalogue: Watched) -> None:
    keys = ("000000001", "000000009")
    save_set(
        catalogue.store,
        PictureSet(name="two", keys=keys, generation=1, said="", who="ana", created_utc=CREATED),
    )
    assert Search(catalogue, Filters(chosen="two")).keys("key") == list(keys)
    assert catalogue.asked == [0, 2]
    with pytest.raises(NoSuchThing, match="there are two"):
        Search(catalogue, Filters(chosen="one"))
    with pytest.raises(InputError, match="says nothing without since"):
        Filters(change="new")
