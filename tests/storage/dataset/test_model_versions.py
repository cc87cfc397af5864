"""Numbered models, promotions and checkpoints: nothing overwritten, nothing half there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maskmill.storage.dataset.model_versions import (
    SHIPPED,
    add_model,
    fetch,
    last_checkpoint,
    list_models,
    load_model,
    note_decision,
    promote,
    promoted,
    promotions,
    read_checkpoint,
    save_checkpoint,
)
from maskmill.storage.errors import DamagedObject, ObjectNotFound
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store

NOW = "2025-01-01T00:00:00+00:00"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "dataset")


def weights(tmp_path: Path, text: str = "weights") -> Path:
    path = tmp_path / "w.safetensors"
    path.write_text(text)
    return path


def test_models_are_numbered_and_keep_their_gates(store: ObjectStore, tmp_path: Path) -> None:
    for number in (1, 2):
        card = add_model(
            store, weights(tmp_path), model="nano", trained={"generation": number}, created_utc=NOW
        )
        assert card.number == number
    note_decision(store, 2, {"passed": False, "why": "worse"})
    note_decision(store, 2, {"passed": True, "why": "better"})
    assert [one["why"] for one in load_model(store, 2).decisions] == ["worse", "better"]
    assert [card.trained["generation"] for card in list_models(store)] == [1, 2]
    with pytest.raises(ObjectNotFound, match=r"no segmenter 7; there are \[1, 2\]"):
        load_model(store, 7)


def test_writers_of_one_number_take_the_next(store: ObjectStore, tmp_path: Path) -> None:
    path = weights(tmp_path)
    with ThreadPoolExecutor(6) as threads:
        cards = list(
            threads.map(lambda _: add_model(store, path, model="nano", trained={}, created_utc=NOW), range(6))
        )
    assert sorted(card.number for card in cards) == [1, 2, 3, 4, 5, 6]
    assert len({card.weights.name for card in list_models(store)}) == 6


def test_a_run_makes_one_model(store: ObjectStore, tmp_path: Path) -> None:
    cards = [
        add_model(store, weights(tmp_path), model="nano", trained={}, created_utc=NOW, run="a") for _ in "12"
    ]
    assert cards[0] == cards[1] and len(list_models(store)) == 1


def test_promotions_go_forward_and_back_and_keep_their_history(store: ObjectStore, tmp_path: Path) -> None:
    assert promoted(store) is None
    for _ in range(2):
        add_model(store, weights(tmp_path), model="nano", trained={}, created_utc=NOW)
    for model in (1, 2, 2, 1, SHIPPED):
        promote(store, model, why=f"to {model}", created_utc=NOW)
    assert [one.model for one in promotions(store)] == [1, 2, 1, SHIPPED]
    now = promoted(store)
    assert now is not None and now.model == SHIPPED
    with pytest.raises(ObjectNotFound):
        promote(store, 9, why="", created_utc=NOW)


def test_checkpoints_keep_the_last_two_and_the_last_whole_one_counts(store: ObjectStore) -> None:
    assert last_checkpoint(store, "r") is None
    for step in (5, 10, 15):
        save_checkpoint(store, "r", step, f"state {step}".encode(), facts={"loss": 1.0})
    assert len(list(store.list("models/segmenter/runs/r/"))) == 4
    found = last_checkpoint(store, "r")
    assert found is not None and read_checkpoint(store, found) == b"state 15"
    store.delete(found.data.name)
    older = last_checkpoint(store, "r")
    assert older is not None and older.step == 10
    assert list_models(store) == []


def test_a_fetched_file_is_whole_or_not_there(store: ObjectStore, tmp_path: Path) -> None:
    card = add_model(store, weights(tmp_path), model="nano", trained={}, created_utc=NOW)
    path = fetch(store, card.weights, tmp_path / "cache")
    assert path.read_text() == "weights" and path.suffix == ".safetensors"
    assert fetch(store, card.weights, tmp_path / "cache") == path
    store.put(card.weights.name, b"weightz")
    with pytest.raises(DamagedObject, match="sha256 is not the recorded one"):
        fetch(store, card.weights, tmp_path / "other")
    assert not any((tmp_path / "other").iterdir())


def test_a_card_that_cannot_be_read_is_named(store: ObjectStore, tmp_path: Path) -> None:
    card = add_model(store, weights(tmp_path), model="nano", trained={}, created_utc=NOW)
    store.put(f"{card.folder}/card.json", b"{}")
    with pytest.raises(DamagedObject, match=r"000001/card.json: not a readable record"):
        load_model(store, 1)
