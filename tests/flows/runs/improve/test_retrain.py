"""The run `retrain`: what names a training, from which model it starts, and what it gives back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from maskmill.flows.config import ConfigError, RunConfig
from maskmill.flows.report.report import Silence, watching
from maskmill.flows.runs.improve.retrain import NEUTRAL, plan_training, retrain
from maskmill.storage.dataset.model_versions import SHIPPED, add_model, list_models, load_model, promote
from maskmill.storage.errors import DatasetError
from maskmill.storage.stores.open import open_store
from tests.flows.runs.places import Place
from tests.workers.train.training_set import write_student

NOW = "2025-01-01T00:00:00+00:00"


class Counts(Silence):
    """Remembers what a watcher is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.counts: list[tuple[int, int | None]] = []

    def step(self, title: str, counts: str = "") -> None:
        self.steps.append(title)

    def count(self, done: int, total: int | None = None) -> None:
        self.counts.append((done, total))


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"retrain": dataclasses.replace(config.retrain, **changes)})


def test_a_training_is_named_by_what_changes_its_outcome(place: Place, config: RunConfig) -> None:
    name = plan_training(place.dataset, None, config).run
    neutral = {"micro_batch": 2, "checkpointing": True, "checkpoint_every": 1}
    assert set(neutral) == set(NEUTRAL)
    for field, value in neutral.items():
        changed = with_training(config, **{field: value})
        assert changed.retrain != config.retrain, f"{field} is what it was: this tests nothing"
        assert plan_training(place.dataset, None, changed).run == name, field
    for field, value in {"steps": 3, "lr": 1e-5, "seed": 5, "looks": 0.5, "average": 0.9}.items():
        changed = with_training(config, **{field: value})
        assert plan_training(place.dataset, None, changed).run != name, field


def test_it_starts_from_the_model_in_force_or_from_the_base(
    place: Place, config: RunConfig, tmp_path: Path
) -> None:
    store = open_store(place.dataset)
    shipped = config.model_copy(update={"segmenter": dataclasses.replace(config.segmenter, weights=None)})
    before = plan_training(place.dataset, None, shipped)
    weights = write_student(tmp_path / "better.safetensors")
    card = add_model(store, weights, model="nano", trained={}, created_utc=NOW)
    promote(store, card.number, why="test", created_utc=NOW)

    promoted = plan_training(place.dataset, None, shipped)
    assert promoted.segmenter.weights is not None
    assert card.weights.sha256 in promoted.segmenter.weights
    assert promoted.facts["started_from"] == card.weights.sha256 != before.facts["started_from"]
    assert promoted.run != before.run
    assert plan_training(place.dataset, None, shipped, start="base") == before


def test_a_training_with_a_gate_gives_the_card_and_the_decision(place: Place, config: RunConfig) -> None:
    seen = Counts()
    with watching(seen):
        found = retrain(place.dataset, config, gate=place.gate, promote=True)
    assert (found.generation, found.card.number) == (1, 1)
    assert found.card.trained["generation"] == 1
    assert found.decision is not None and found.decision["promoted"] is False
    assert found.facts()["decision"] == found.decision and found.facts()["number"] == 1
    assert load_model(open_store(place.dataset), 1).decisions[0]["against"] == SHIPPED
    assert seen.steps[0] == f"training run {found.card.run}"
    assert seen.counts[-1] == (config.retrain.steps, config.retrain.steps)

    again = retrain(place.dataset, config)
    assert again.card == found.card and again.decision is None, "the same training is not made twice"
    assert len(list_models(open_store(place.dataset))) == 1


@pytest.mark.parametrize("options", [{"start": "scratch"}, {"promote": True}])
def test_what_makes_no_sense_is_refused_before_the_dataset_is_held(
    options: dict[str, Any], config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--promote needs a --gate"):
        retrain(str(tmp_path / "nothing"), config, **options)
    assert not (tmp_path / "nothing").exists()


def test_a_dataset_without_a_generation_is_told(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no generation"):
        plan_training(str(tmp_path / "nothing"), None, config)
