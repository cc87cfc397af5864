"""One picture that a model raises for is left out with the reason; a broken model or stage stops the turn.

Through the real builders, with small models in real formats whose one method is made to raise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskmill.pipeline.segmenters.image import SamImage
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.words import CaptionSettings, LabelSettings, NameSettings
from maskmill.pipeline.words.caption import CapFilt
from maskmill.pipeline.words.captioners.blip import BlipCaptioner, BlipFilter
from maskmill.pipeline.words.clip import Namer
from maskmill.pipeline.words.detectors.grounding_dino import GroundingDino
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import RunSpec, ShardTask, make_spec
from maskmill.workers.run.work_settings import WorkSettings
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from tests.pipeline.words import tiny_clip
from tests.tiny_models import save_blip, save_grounding_dino

NUM_IMAGES = 4
RED_KEY = "000000002"

Folders = dict[str, str]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Four pictures, the second one red, and the models."""
    top = tmp_path_factory.mktemp("guarded")
    (top / "inputs").mkdir()
    draw = np.random.default_rng(0)
    for place in range(NUM_IMAGES):
        pixels = draw.integers(0, 255, (12, 16, 3), np.uint8).repeat(6, 0).repeat(6, 1)
        pixels = np.full_like(pixels, (255, 0, 0)) if place == 1 else pixels
        Image.fromarray(pixels).save(top / "inputs" / f"{place}.png")
    return {
        "inputs": str(top / "inputs"),
        "captioner": str(save_blip(top / "captioner", retrieval=False)),
        "filter": str(save_blip(top / "filter", retrieval=True)),
        "detector": str(save_grounding_dino(top / "detector")),
        "namer": str(tiny_clip.save(tiny_clip.build_clip(), top / "namer")),
    }


def planned(root: Path, folders: Folders, *, images_per_batch: int = 1) -> RunSpec:
    make_plan(open_store(root), [folders["inputs"]], shard_size=NUM_IMAGES)
    return make_spec(
        str(root),
        ingest=IngestSettings(),
        masks=MaskSettings(points_per_side=2, predicted_iou=0.0, stability=0.0),
        segmenter=SegmenterSettings(device="cpu", threads=1),
        captions=CaptionSettings(
            model=folders["captioner"], filter=folders["filter"], threshold=0.0, batch_size=NUM_IMAGES
        ),
        labels=LabelSettings(model=folders["detector"], text="vocabulary", vocabulary=("dog", "cat")),
        names=NameSettings(model=folders["namer"], vocabulary=("circle", "square")),
        work=WorkSettings(images_per_batch=images_per_batch),
    )


def is_red(pixels: Any) -> bool:
    return bool(pixels[..., 0].mean() > 250 and pixels[..., 1].mean() < 5)


def raising(
    monkeypatch: pytest.MonkeyPatch, model: type, method: str, when: Callable[[Any], bool], error: Exception
) -> None:
    """Makes a model's method raise where its first argument is one that `when` knows."""
    inner = getattr(model, method)

    def call(self: Any, given: Any, *others: Any, **more: Any) -> Any:
        if when(given):
            raise error
        return inner(self, given, *others, **more)

    monkeypatch.setattr(model, method, call)


ROLES: dict[str, tuple[type, str, Callable[[Any], bool], str]] = {
    "segmenter": (SamSegmenter, "embed", lambda images: any(map(is_red, images)), "masks"),
    "captioner": (
        BlipCaptioner,
        "captions",
        lambda subjects: any(is_red(subject.pixels_HWC) for subject in subjects),
        "captions",
    ),
    "filter": (BlipFilter, "scores", lambda images: any(map(is_red, images)), "captions"),
    "detector": (GroundingDino, "detect", lambda jobs: any(is_red(job[0]) for job in jobs), "labels"),
    "namer": (Namer, "dense_features", is_red, "names"),
}


@pytest.mark.parametrize("images_per_batch", [1, NUM_IMAGES])
@pytest.mark.parametrize("role", ROLES)
def test_a_picture_that_a_model_raises_for_is_left_out(
    role: str, images_per_batch: int, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, method, when, column = ROLES[role]
    raising(monkeypatch, model, method, when, ValueError("no such picture, please"))
    spec = planned(tmp_path, folders, images_per_batch=images_per_batch)

    report = run_shard(build_stages(spec), ShardTask(shard=0, attempt="a" * 16))

    record = ColumnVersion(open_store(spec.root), column, spec.fingerprints[column]).record(0)
    assert record is not None and record.num_written == NUM_IMAGES - 1
    (reject,) = record.rejects
    assert (reject.key, reject.reason) == (RED_KEY, "model_refused")
    assert reject.detail == f"the {role} raised ValueError: no such picture, please"
    assert report.num_annotated == NUM_IMAGES - 1 and report.rejects == {"model_refused": 1}


@pytest.mark.parametrize("role", ROLES)
def test_a_model_that_raises_for_any_picture_stops_the_turn(
    role: str, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, method, _, _ = ROLES[role]
    raising(monkeypatch, model, method, lambda _: True, RuntimeError("CUDA error: device-side assert"))
    spec = planned(tmp_path, folders)
    with pytest.raises(RuntimeError, match="device-side assert") as raised:
        run_shard(build_stages(spec), ShardTask(shard=0, attempt="a" * 16))
    assert any("image 000000001" in note for note in raised.value.__notes__)


def test_decoding_of_a_prompt_is_the_model_too(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, calls = SamImage.predict, 0

    def once(self: SamImage, *given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise IndexError("index out of range in self")
        return inner(self, *given, **more)

    monkeypatch.setattr(SamImage, "predict", once)
    spec = planned(tmp_path, folders)
    report = run_shard(build_stages(spec), ShardTask(shard=0, attempt="a" * 16))
    assert report.rejects == {"model_refused": 1} and report.num_annotated == NUM_IMAGES - 1


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError("ours"), TypeError("ours")])
def test_a_fault_in_the_stages_own_code_stops_the_turn(
    error: Exception, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, CapFilt, "__call__", lambda subjects: is_red(subjects[0].pixels_HWC), error)
    spec = planned(tmp_path, folders)
    with pytest.raises(type(error), match="ours"):
        run_shard(build_stages(spec), ShardTask(shard=0, attempt="a" * 16))


@pytest.mark.parametrize("size", [(20, 20_000), (16, 10_400), (20_000, 20)], ids=str)
def test_a_strip_is_left_out_as_too_thin(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 255, size, np.uint8)).save(tmp_path / "inputs" / "0.png")
    Image.fromarray(draw.integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / "inputs" / "1.png")
    make_plan(open_store(tmp_path / "data"), [str(tmp_path / "inputs")], shard_size=2)
    spec = make_spec(
        str(tmp_path / "data"),
        ingest=IngestSettings(),
        masks=MaskSettings(points_per_side=2),
        segmenter=SegmenterSettings(device="cpu", threads=1),
    )
    report = run_shard(build_stages(spec), ShardTask(shard=0, attempt="a" * 16))
    assert report.rejects == {"too_thin": 1} and report.num_annotated == 1
