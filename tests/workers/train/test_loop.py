"""The training loop on a real, small dataset: it learns, goes on where it stopped, and refuses bad input."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from maskmill.pipeline.segmenters.student import build_student, load_student, save_student
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train import scores
from maskmill.storage.dataset.model_versions import fetch, last_checkpoint, list_models, load_model
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.stores.open import open_store
from maskmill.workers.train import loop as training
from maskmill.workers.train.loop import StepFigures, TrainingDiverged, train
from maskmill.workers.train.stream import Place, TrainStream
from tests.workers.train.training_set import SETTINGS, STUDENT, job_of, publish_scenes


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("training")
    publish_scenes(folder)
    return folder


def weights_of(folder: Path, run: str) -> dict[str, torch.Tensor]:
    store = open_store(str(folder / "dataset"))
    card = next(card for card in list_models(store) if card.run == run)
    return load_student(fetch(store, card.weights, folder / "cache")).state_dict()


def test_killed_three_times_it_ends_at_the_same_weights(scenes: Path) -> None:
    whole = train(job_of(scenes, "whole"))
    assert whole is not None
    for stop_after in (3, 4, 7):

        def watch(figures: StepFigures, stop_after: int = stop_after) -> None:
            if figures.step == stop_after:
                raise Killed

        with pytest.raises(Killed):
            train(job_of(scenes, "killed"), watch=watch)
    card = train(job_of(scenes, "killed"))
    assert card is not None
    assert card.trained["curve"] == whole.trained["curve"]
    undisturbed, other = weights_of(scenes, "whole"), weights_of(scenes, "killed")
    assert all(torch.equal(value, other[name]) for name, value in undisturbed.items())
    assert train(job_of(scenes, "killed")) == card, "a run that is done makes no second model"


def test_an_average_is_what_is_kept_and_outlives_a_kill(scenes: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=4, average=0.9)
    last = dataclasses.replace(settings, average=0.0)
    for run, own in (("steady", settings), ("last", last)):
        assert train(job_of(scenes, run, own)) is not None

    def watch(figures: StepFigures) -> None:
        if figures.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(job_of(scenes, "steady-killed", settings), watch=watch)
    assert train(job_of(scenes, "steady-killed", settings)) is not None
    steady, again, other = (weights_of(scenes, run) for run in ("steady", "steady-killed", "last"))
    assert all(torch.equal(value, again[name]) for name, value in steady.items())
    begun = load_student(scenes / "start.safetensors").state_dict()
    far = {
        key: sum(float((state[name] - value).abs().sum()) for name, value in begun.items())
        for key, state in (("steady", steady), ("last", other))
    }
    assert 0 < far["steady"] < far["last"]


def test_a_model_with_a_curve_ends_calibrated_and_its_card_says_so(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "LEAST_ANSWERS", 20)
    settings = dataclasses.replace(SETTINGS, steps=2, calibrate=True)
    with pytest.raises(InputError, match="no curve to fit"):
        train(job_of(scenes, "flat", settings))
    weights = scenes / "curved.safetensors"
    config = dataclasses.replace(STUDENT, iou_knots=9)
    torch.manual_seed(0)
    save_student(build_student(config), config, weights)
    segmenter = dataclasses.replace(job_of(scenes, "x").segmenter, weights=str(weights))
    job = dataclasses.replace(job_of(scenes, "curved", settings), segmenter=segmenter)
    card = train(job)
    assert card is not None
    fit = card.trained["calibration"]
    assert fit["answers"] == 6 * 3 * 3 and fit["error_after"] < fit["error_before"]
    begun, ended = load_student(weights), weights_of(scenes, "curved")
    name = "mask_decoder.iou_prediction_head.true_K"
    assert not torch.equal(begun.state_dict()[name], ended[name])


def test_what_a_model_says_of_its_masks_is_learned_alone(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "LEAST_ANSWERS", 20)
    card = train(job_of(scenes, "says", dataclasses.replace(SETTINGS, steps=0, score_steps=40)))
    assert card is not None
    assert card.trained["scores"]["error_after"] < card.trained["scores"]["error_before"]
    assert card.trained["curve"] == [] and card.trained["images_seen"] == 0
    begun, ended = load_student(scenes / "start.safetensors").state_dict(), weights_of(scenes, "says")
    changed = {name for name, value in begun.items() if not torch.equal(value, ended[name])}
    assert changed and all(".iou_prediction_head." in name for name in changed)


def test_the_loss_falls(scenes: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=20, lr=2e-3, flips=False)
    curve: list[float] = []
    train(job_of(scenes, "falls", settings), watch=lambda figures: curve.append(figures.loss))
    assert np.mean(curve[-5:]) < 0.95 * np.mean(curve[:5])


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = training.image_loss, [0]

    def sick(*given: object) -> object:
        calls[0] += 1
        found = real(*given)  # type: ignore[arg-type]
        return found if calls[0] <= 2 * 5 else dataclasses.replace(found, loss=found.loss * float("nan"))

    monkeypatch.setattr(training, "image_loss", sick)
    with pytest.raises(
        TrainingDiverged, match=r"step 6: .*nan.*checkpoint of step 4 is kept.*Lower retrain.lr"
    ):
        train(job_of(scenes, "sick"))
    kept = last_checkpoint(open_store(str(scenes / "dataset")), "sick")
    assert kept is not None and kept.step == 4
    monkeypatch.undo()
    assert train(job_of(scenes, "sick")) is not None


def test_too_few_images_for_a_batch_are_named_before_work_starts(scenes: Path) -> None:
    with pytest.raises(InputError, match=r"6 images .* fewer than a batch of 8"):
        train(job_of(scenes, "few", dataclasses.replace(SETTINGS, batch=8)))
    with pytest.raises(InputError, match="use a multiple"):
        train(job_of(scenes, "odd", dataclasses.replace(SETTINGS, batch=3)), world=2)


def test_masks_without_a_pixel_teach_nothing(tmp_path: Path) -> None:
    publish_scenes(tmp_path, count=2, empty=True)
    with pytest.raises(InputError, match="0 images with masks"):
        train(job_of(tmp_path, "empty"))


def test_a_sequence_goes_on_from_any_place(scenes: Path) -> None:
    store = open_store(str(scenes / "dataset"))
    from maskmill.storage.dataset.generations import load_generation

    stream = TrainStream(store, load_generation(store, 1), SETTINGS)
    run = stream.items(Place())
    seen = [next(run) for _ in range(20)]
    assert sorted(raw.key for _, raw in seen[:6]) == sorted(raw.key for _, raw in seen[6:12])
    assert [raw.key for _, raw in seen[:6]] != [raw.key for _, raw in seen[6:12]]
    for start in (1, 5, 6, 13):
        again = TrainStream(store, load_generation(store, 1), SETTINGS).items(seen[start - 1][0])
        assert [next(again)[1].key for _ in range(4)] == [raw.key for _, raw in seen[start : start + 4]]


def test_a_generation_without_masks_is_refused(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskmill.storage.dataset.generations import Generation, load_generation

    store = open_store(str(scenes / "dataset"))
    found = load_generation(store, 1)
    monkeypatch.setattr(Generation, "rows", lambda self: ())
    with pytest.raises(DatasetError, match="no masks to train on"):
        TrainStream(store, found, SETTINGS)


@pytest.mark.drill
def test_kill_9_three_times(scenes: Path) -> None:
    """A process of its own, killed for real."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.workers.train.training_set", str(scenes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "calm"], cwd=root, env=environment, check=True, timeout=120)
    store = open_store(str(scenes / "dataset"))
    for wanted in (2, 4, 6):
        process = subprocess.Popen([*command, "struck"], cwd=root, env=environment)
        end = time.monotonic() + 90
        while time.monotonic() < end and process.poll() is None:
            found = last_checkpoint(store, "struck")
            if found is not None and found.step >= wanted:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "struck"], cwd=root, env=environment, check=True, timeout=120)
    calm, struck = weights_of(scenes, "calm"), weights_of(scenes, "struck")
    assert all(torch.equal(value, struck[name]) for name, value in calm.items())


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore:::ray.data.context")  # Ray's own deprecated settings
def test_two_workers_walk_the_curve_of_one(scenes: Path) -> None:
    from maskmill.flows.services.ray import cluster
    from maskmill.workers.train.on_ray import train_on_ray

    settings = TrainSettings(**{**dataclasses.asdict(SETTINGS), "steps": 4})
    alone = train(job_of(scenes, "alone", settings))
    with cluster.connected():
        pair = train_on_ray(job_of(scenes, "pair", settings), num_workers=2, num_cpus=0.5)
    assert alone is not None
    assert load_model(open_store(str(scenes / "dataset")), pair.number).run == "pair"
    for one, two in zip(alone.trained["curve"], pair.trained["curve"], strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5)
