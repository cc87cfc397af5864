"""Retraining, gate, promotion and loop as the commands call them, on a dataset that a tiny student annotated.

Where nothing is promoted no masks change, so no Ray is needed: the gate's margin sees to that.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from maskmill.flows.cli import app
from maskmill.flows.config import ConfigError, RunConfig, load_config
from maskmill.flows.runs.improve.distill import run_distillation
from maskmill.flows.runs.improve.loop import LoopPlan, curves, loop_name, run_loop
from maskmill.flows.runs.improve.retrain import plan_training, retrain, run_training
from maskmill.flows.runs.steps.gate import judge
from maskmill.flows.runs.steps.planning import describe_run
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.train import distill
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.model_versions import list_models, load_model, promote, promoted
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.errors import InputError
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.review import summary
from maskmill.workers.reading.samples import read_annotated
from maskmill.workers.reviews.keep import Work, begin, keep
from maskmill.workers.reviews.rows import MaskWork
from tests.flows.runs.places import Place
from tests.workers.train.training_set import STUDENT

NOW = "2025-01-01T00:00:00+00:00"


def test_a_gate_set_of_near_duplicates_is_refused(place: Place, config: RunConfig) -> None:
    coco, images = place.gate
    kept = next(path for path in Path(place.inputs[0]).iterdir() if path.suffix in (".jpg", ".png"))
    listed = sorted(images.iterdir())[0]
    with Image.open(kept) as picture, Image.open(listed) as other:
        copy = picture.convert("RGB").resize(other.size)
    copy.save(listed, **({"quality": 70} if listed.suffix == ".jpg" else {}))
    with pytest.raises(InputError, match=rf"1 of its pictures .*{listed.name} is 0000000\d\d but for"):
        plan_training(place.dataset, None, config, gate=(coco, images))


def test_a_gate_set_that_overlaps_the_training_set_is_refused(place: Place, config: RunConfig) -> None:
    with pytest.raises(InputError, match="overlaps the training set: 4 of its pictures are in generation 1"):
        plan_training(place.dataset, None, config, gate=place.truth)
    card = run_training(plan_training(place.dataset, None, config), config)
    with pytest.raises(InputError, match="overlaps the training set"):
        judge(place.dataset, card.number, config, *place.truth, promote=True)
    assert promoted(open_store(place.dataset)) is None


def test_the_decision_is_on_the_card_and_a_promotion_changes_the_next_generation(
    place: Place, config: RunConfig
) -> None:
    card = run_training(plan_training(place.dataset, None, config, gate=place.gate), config)
    refused = judge(place.dataset, card.number, config, *place.gate, promote=True)
    assert not refused["passed"] and not refused["promoted"] and "below the margin" in refused["why"]
    store = open_store(place.dataset)
    assert load_model(store, card.number).decisions[0]["why"] == refused["why"]

    before = describe_run(place.dataset, config)
    shipped = config.model_copy(update={"segmenter": dataclasses.replace(config.segmenter, weights=None)})
    promote(store, card.number, why="test", created_utc=NOW)
    assert describe_run(place.dataset, config) == before, "weights that are named are used"
    after = describe_run(place.dataset, shipped)
    assert after.segmenter.weights is not None and card.weights.sha256 in after.segmenter.weights
    assert after.fingerprints["images"] == before.fingerprints["images"]
    assert after.fingerprints["masks"] != before.fingerprints["masks"]
    promote(store, 0, why="back", created_utc=NOW)
    assert describe_run(place.dataset, shipped).segmenter.weights is None


def test_a_loop_begins_with_no_dataset_goes_on_where_it_stopped_and_reports_each_round(
    place: Place, config: RunConfig, tmp_path: Path
) -> None:
    dataset = str(tmp_path / "new")
    plan = LoopPlan(dataset=dataset, inputs=place.inputs, rounds=1, gate=place.gate, truth=place.truth)
    first = run_loop(plan, config, out=tmp_path / "report")
    assert len(first.rounds) == 1 and first.promoted == 0
    assert first.rounds[0]["review"]["images"] == 1 and not first.rounds[0]["passed"]
    assert {Path(path).name for path in first.files} == {"loop.json", "rounds.png"}
    again = run_loop(dataclasses.replace(plan, rounds=2), config)
    assert again.rounds[0] == first.rounds[0] and again.before == first.before
    assert again.rounds[1]["review"]["new"] == 0, "who was reviewed stays reviewed"
    assert again.rounds[1]["model"] == 2, "a refused round is not the same again"
    sound = verify(open_store(dataset), deep=True)
    assert (sound.images, sound.annotated, sound.rejected) == (4, 4, 0) and not sound.problems
    assert [name for name, _ in curves(again, config.gate.figure)] == ["candidate", "in force"]
    assert [len(points) for _, points in curves(again, config.gate.figure)] == [3, 3]
    other = config.model_copy(update={"loop": dataclasses.replace(config.loop, seed=1)})
    assert loop_name(plan, other) != loop_name(plan, config) == again.loop


def drawn(place: Place, key: str) -> None:
    """A person draws one mask on a picture of the latest generation, and is done with it."""
    store = open_store(place.dataset)
    generation = find_generation(store)
    (sample,) = [one for one in read_annotated(store, generation, pictures=False) if one.key == key]
    start = begin(store, key, record=sample.record, generation=generation.number, blank=True)
    mask_HW = np.zeros((start.image["height"], start.image["width"]), np.bool_)
    mask_HW[5:30, 5:30] = True
    mask = MaskWork(how="added", segmentation=encode_mask(mask_HW).to_coco(), drawn=True, clicks=4)
    keep(store, start, Work(who="Ana", tool="page", masks=[mask], finished=True), created_utc=NOW)


def test_a_retraining_learns_from_what_people_saved_so_far(place: Place, config: RunConfig) -> None:
    drawn(place, "000000001")
    done = retrain(place.dataset, config)
    assert done.generation == 2, "published by the way"
    assert summary(open_store(place.dataset), find_generation(open_store(place.dataset))).images == 1
    assert retrain(place.dataset, config, generation=1).generation == 1, "one that is named stays"


def test_a_loop_without_an_oracle_runs_from_people_s_reviews(place: Place, config: RunConfig) -> None:
    plan = LoopPlan(dataset=place.dataset, inputs=place.inputs, rounds=1, gate=place.gate)
    with pytest.raises(InputError, match="0 pictures were reviewed, and 1 are asked for"):
        run_loop(plan, config)
    drawn(place, "000000002")
    found = run_loop(plan, config).rounds[0]
    assert (found["review"]["images"], found["review"]["clicks"], found["generation"]) == (1, 4, 2)


def test_reviewing_alone_publishes_what_was_saved(place: Place) -> None:
    nothing = CliRunner().invoke(app, ["review", place.dataset])
    assert nothing.exit_code == 2 and "0 pictures were reviewed" in " ".join(nothing.stderr.split())
    drawn(place, "000000001")
    done = json.loads(CliRunner().invoke(app, ["review", place.dataset, "--json"]).stdout)
    assert (done["generation"], done["published"], done["images"], done["finished"]) == (2, True, 1, 1)
    again = json.loads(CliRunner().invoke(app, ["review", place.dataset, "--json"]).stdout)
    assert (again["generation"], again["published"]) == (2, False)
    half = CliRunner().invoke(app, ["review", place.dataset, "--images", "2"])
    assert half.exit_code == 2 and "go together" in " ".join(half.stderr.split())
    told = json.loads(CliRunner().invoke(app, ["status", place.dataset, "--json"]).stdout)
    assert told["reviews"] == {"pictures": 1, "saves": 1, "open": {}}


def test_a_round_that_was_recorded_is_promoted_once(place: Place, config: RunConfig) -> None:
    from maskmill.flows.runs.improve.loop import _settle

    store = open_store(place.dataset)
    card = run_training(plan_training(place.dataset, None, config), config)
    found = {"passed": True, "model": card.number, "why": "accepted"}
    _settle(store, found)
    promote(store, 0, why="a person went back", created_utc=NOW)
    _settle(store, found)
    now = promoted(store)
    assert now is not None and now.model == 0
    _settle(store, {**found, "model": 9, "passed": False})


def test_a_distilled_student_is_a_model_of_the_dataset(
    place: Place, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(distill.STUDENTS, "micro", STUDENT)
    small = dataclasses.replace(config.distill, encoder_steps=1, prompt_steps=1, batch=2, masks=2, rounds=2)
    run = config.model_copy(update={"distill": small})
    card = run_distillation(place.dataset, None, run, "micro")
    assert card.trained["distilled"] == "micro" and len(card.trained["curve"]) == 2
    assert run_distillation(place.dataset, None, run, "micro") == card
    assert [one.number for one in list_models(open_store(place.dataset))] == [card.number]
    with pytest.raises(InputError, match="student 'huge' is unknown"):
        run_distillation(place.dataset, None, run, "huge")


def test_commands_refuse_what_makes_no_sense(place: Place, tmp_path: Path) -> None:
    runner = CliRunner()
    loop = ["loop", place.dataset, "--input", place.inputs[0], "--gate", *map(str, place.gate)]
    for command, words in (
        (["retrain", place.dataset, "--promote"], "needs a --gate"),
        ([*loop, "--set", "loop.reviewed=2"], "0 pictures were reviewed, and 2 are asked for"),
        (["evaluate", "--audit"], "name it first"),
        (["evaluate", "--coco", str(place.gate[0])], "go together"),
        (["evaluate", "--segmenter", "nanno", "--scenes", "1"], "nanno"),
        (["promote", place.dataset, "--to", "5"], "no segmenter 5"),
        (["retrain", str(tmp_path / "nothing")], "holds no generation"),
    ):
        result = runner.invoke(app, command)
        assert result.exit_code in (2, 3), result.output
        assert words in " ".join(result.stderr.split())
    given = runner.invoke(
        app, ["review", place.dataset, "--truth", *map(str, place.truth), "--images", "4", "--json"]
    )
    found = json.loads(given.stdout)
    assert (found["images"], found["objects"], found["clicks"], found["generation"]) == (4, 12, 0, 2)
    shown = runner.invoke(app, ["promote", place.dataset, "--json"])
    assert json.loads(shown.stdout) == {"promoted": None, "promotions": [], "models": []}
    with pytest.raises(ConfigError, match="student"):
        load_config(sets=["distill.student=tiny"])
    assert find_generation(open_store(place.dataset)).number == 2
