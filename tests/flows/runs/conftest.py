"""A dataset that a tiny student annotated, with its truth and a gate set; no Ray is needed for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.runs.steps.planning import describe_run, is_complete
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from tests.flows.runs.places import Place
from tests.workers.train.training_set import write_coco, write_student


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    torch.set_num_threads(1)
    weights = write_student(tmp_path_factory.mktemp("student") / "s.safetensors")
    sets = [
        f"segmenter.weights={weights}", "segmenter.device=cpu", "segmenter.threads=1",
        "masks.points_per_side=3",
        "masks.predicted_iou=0", "masks.stability=0", "masks.min_area_px=0", "masks.drop_small=false",
        "run.shard_size=2", "retrain.steps=2", "retrain.batch=2", "retrain.masks=2", "retrain.points=1",
        "retrain.bare_rounds=0", "retrain.min_area_px=1", "evaluate.measures=points", "evaluate.clicks=1",
        "gate.bootstrap=100", "gate.margin=1", "loop.reviewed=1", "loop.most_clicks=2",
    ]  # fmt: skip
    return load_config("nano", sets=sets)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> Place:
    """Made and annotated once, then moved aside; its plan names its inputs where they were."""
    folder = tmp_path_factory.mktemp("place") / "here"
    known = write_coco(folder / "known", first=0, count=4)
    gate = write_coco(folder / "gate", first=70, count=2)
    dataset = str(folder / "dataset")
    store = open_store(dataset)
    make_plan(store, [str(known.images)], shard_size=2)
    spec = describe_run(dataset, config)
    stages = build_stages(spec)
    for shard in range(2):
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))
    assert is_complete(spec) and publish_and_verify(spec, config).generation == 1
    folder.rename(folder.with_name("pristine"))
    return Place(dataset, (str(known.images),), (known.coco, known.images), (gate.coco, gate.images))


@pytest.fixture
def place(pristine: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The pristine one, where it was made."""
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path / "cache"))
    here = Path(pristine.dataset).parent
    shutil.copytree(here.with_name("pristine"), here)
    yield pristine
    shutil.rmtree(here)
