"""Which weights a run's segmenter gets: its own, those it names, or the dataset's model in force."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.dataset.model_versions import SHIPPED, ModelCard, add_model, promote
from maskmill.storage.errors import InputError
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.dataset_models import bring, cache_folder, in_force

NOW = "2025-01-01T00:00:00+00:00"
NANO = SegmenterSettings(model="nano")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path / "cache"))
    return open_store(tmp_path / "data")


def add(store: ObjectStore, tmp_path: Path, data: bytes, model: str = "nano") -> ModelCard:
    (tmp_path / "made.safetensors").write_bytes(data)
    return add_model(store, tmp_path / "made.safetensors", model=model, trained={}, created_utc=NOW)


def test_nothing_in_force_leaves_the_models_own_weights(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, b"kept, not promoted")
    assert in_force(store, NANO) == NANO
    assert in_force(store, replace(NANO, weights="shipped")) == NANO
    with pytest.raises(InputError, match="no model is promoted; `maskmill promote` puts one in force"):
        in_force(store, replace(NANO, weights="promoted"))


def test_the_model_in_force_is_fetched_by_its_sha256(store: ObjectStore, tmp_path: Path) -> None:
    card = add(store, tmp_path, b"better")
    promote(store, card.number, why="test", created_utc=NOW)
    for asked in (NANO, replace(NANO, weights="promoted")):
        found = Path(str(in_force(store, asked).weights))
        assert found.read_bytes() == b"better" and found.parent == cache_folder()
        assert found.stem == hashlib.sha256(b"better").hexdigest()
    assert in_force(store, replace(NANO, weights="shipped")) == NANO, "whatever is promoted"
    named = replace(NANO, weights="/mine.safetensors")
    assert in_force(store, named) == named, "weights that are named are used"

    promote(store, 0, why="back to what ships", created_utc=NOW)
    assert in_force(store, NANO) == NANO
    with pytest.raises(InputError, match="no model is promoted"):
        in_force(store, replace(NANO, weights="promoted"))


def test_a_promoted_model_of_another_kind_is_used_only_where_it_is_asked_for(
    store: ObjectStore, tmp_path: Path
) -> None:
    card = add(store, tmp_path, b"large", model="vit_b")
    promote(store, card.number, why="test", created_utc=NOW)
    assert in_force(store, NANO) == NANO, "nano was named, and no nano is in force"
    asked = in_force(store, replace(NANO, weights="promoted", threads=3))
    assert (asked.model, asked.threads) == ("vit_b", 3)
    assert card.number != SHIPPED


def test_a_worker_elsewhere_brings_the_file_that_its_settings_name(
    store: ObjectStore, tmp_path: Path
) -> None:
    card = add(store, tmp_path, b"better")
    sha256 = hashlib.sha256(b"better").hexdigest()
    there = tmp_path / "another machine" / f"{sha256}.safetensors"
    bring(store, replace(NANO, weights=str(there)))
    assert there.read_bytes() == b"better" and card.weights.sha256 == sha256

    there.write_bytes(b"here already")
    bring(store, replace(NANO, weights=str(there)))
    assert there.read_bytes() == b"here already", "what is there is not fetched again"
    for path in (tmp_path / "mine.safetensors", tmp_path / f"{'0' * 64}.safetensors"):
        bring(store, replace(NANO, weights=str(path)))
        assert not path.exists(), "no file of this dataset: whoever loads it says so"
    bring(store, NANO)
