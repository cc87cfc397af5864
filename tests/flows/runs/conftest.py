"""A dataset that a tiny student annotated, with its truth and a gate set; no Ray is needed for it."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
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


@pytest.fixture
def place(tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path / "cache"))
    known = write_coco(tmp_path / "known", first=0, count=4)
    gate = write_coco(tmp_path / "gate", first=70, count=2)
    dataset = str(tmp_path / "dataset")
    store = open_store(dataset)
    make_plan(store, [str(known.images)], shard_size=2)
    spec = describe_run(dataset, config)
    stages = build_stages(spec)
    for shard in range(2):
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))
    assert is_complete(spec) and publish_and_verify(spec, config).generation == 1
    return Place(dataset, (str(known.images),), (known.coco, known.images), (gate.coco, gate.images))
