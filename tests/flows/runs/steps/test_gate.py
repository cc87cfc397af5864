"""The gate as a step of a run: who is judged against whom, what is kept of it, and when it promotes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from maskmill.flows.config import RunConfig
from maskmill.flows.runs.steps.gate import judge, refuse_overlap
from maskmill.pipeline import segmenters
from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.dataset.model_versions import (
    ModelCard,
    add_model,
    load_model,
    promote,
    promoted,
    promotions,
)
from maskmill.storage.errors import InputError
from maskmill.storage.stores.open import open_store
from tests.flows.runs.places import Place
from tests.workers.train.training_set import write_coco

NOW = "2025-01-01T00:00:00+00:00"
NANO = Path(segmenters.__file__).parent / "nano.safetensors"


@pytest.fixture
def candidate(place: Place) -> ModelCard:
    """The model that ships inside: far better than the untrained student that `config` names."""
    store = open_store(place.dataset)
    return add_model(store, NANO, model="nano", trained={"generation": 1}, created_utc=NOW)


@pytest.fixture
def lenient(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"gate": dataclasses.replace(config.gate, margin=0.0)})


def test_a_better_model_is_promoted_where_that_is_asked_for(
    place: Place, lenient: RunConfig, candidate: ModelCard
) -> None:
    store = open_store(place.dataset)
    found = judge(place.dataset, candidate.number, lenient, *place.gate, promote=False)
    assert found["passed"] and not found["promoted"] and found["overall"]["gain"] > 0.2
    assert promoted(store) is None

    found = judge(place.dataset, candidate.number, lenient, *place.gate, promote=True)
    assert found["passed"] and found["promoted"]
    now = promoted(store)
    assert now is not None and (now.model, now.why) == (candidate.number, found["why"])
    decisions = load_model(store, candidate.number).decisions
    assert [one["passed"] for one in decisions] == [True, True], "both are kept on the card"
    assert {one["gate_set"] for one in decisions} == {place.gate[0].name}


def test_a_model_is_judged_against_the_one_in_force(
    place: Place, lenient: RunConfig, candidate: ModelCard
) -> None:
    """Against itself it gains nothing: that is no reason to promote it again."""
    store = open_store(place.dataset)
    promote(store, candidate.number, why="test", created_utc=NOW)
    shipped = lenient.model_copy(update={"segmenter": dataclasses.replace(lenient.segmenter, weights=None)})
    found = judge(place.dataset, candidate.number, shipped, *place.gate, promote=True)
    assert found["against"] == candidate.number and found["overall"]["gain"] == 0.0
    assert not found["passed"] and "no gain at all" in found["why"]
    assert len(promotions(store)) == 1

    weak = add_model(store, Path(str(lenient.segmenter.weights)), model="nano", trained={}, created_utc=NOW)
    found = judge(place.dataset, weak.number, shipped, *place.gate, promote=True)
    assert not found["passed"] and not found["promoted"] and "below the margin" in found["why"]
    now = promoted(store)
    assert now is not None and now.model == candidate.number


def test_a_candidate_is_not_judged_on_what_it_was_trained_on(
    place: Place, lenient: RunConfig, candidate: ModelCard
) -> None:
    with pytest.raises(InputError, match="4 of its pictures are in generation 1"):
        judge(place.dataset, candidate.number, lenient, *place.truth, promote=True)
    store = open_store(place.dataset)
    assert promoted(store) is None and not load_model(store, candidate.number).decisions


def test_overlap_is_by_bytes_and_not_by_name(place: Place, tmp_path: Path) -> None:
    store = open_store(place.dataset)
    generation = load_generation(store, 1)
    refuse_overlap(store, generation, *place.gate)

    other = write_coco(tmp_path / "other", first=70, count=2)
    stolen = next(place.truth[1].glob("*.jpg"))
    victim = next(other.images.glob("*.jpg"))
    victim.write_bytes(stolen.read_bytes())
    with pytest.raises(InputError, match=f"1 of its pictures .*{victim.name}"):
        refuse_overlap(store, generation, other.coco, other.images)
