"""What a run finds out before any work, on real storage."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from maskmill.flows.config import load_config
from maskmill.flows.runs.steps import planning
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.plan import cutting
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.workers.published import build_stages, make_spec, write_inputs

CONFIG = load_config(sets=["run.shard_size=4"])


@pytest.fixture
def planned(tmp_path: Path) -> RunSpec:
    """Ten images in three shards, none annotated."""
    write_inputs(tmp_path / "inputs")
    spec = make_spec(tmp_path / "dataset")
    summary = planning.plan_images(spec.root, [str(tmp_path / "inputs")], CONFIG, None)
    assert (summary.num_images, summary.num_shards) == (10, 3)
    return spec


def annotate(spec: RunSpec, *shards: int) -> None:
    stages = build_stages(spec)
    for shard in shards:
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))


def test_small_runs_have_shards_for_every_worker(planned: RunSpec, tmp_path: Path) -> None:
    """Two a worker where no size is given; a limit counts; and once something is made, ten minutes' work."""
    dataset, inputs = str(tmp_path / "other"), [str(tmp_path / "plain")]
    (tmp_path / "plain").mkdir()
    for number in range(10):
        Image.new("RGB", (32, 32), (number, 9, 9)).save(tmp_path / "plain" / f"{number}.png")
    config = load_config(sets=["run.workers=2"])
    assert planning.plan_images(dataset, inputs, config, None).num_shards == 4
    assert planning.measured_shard_size(dataset, inputs, config, 4) == 1
    alone = load_config(sets=["run.workers=1"])
    assert planning.measured_shard_size(dataset, inputs, alone, None) == 5

    # Speed: the newest record of masks
    annotate(planned, 0)
    record = ColumnVersion(open_store(planned.root), "masks", planned.fingerprints["masks"]).record(0)
    assert record is not None
    seconds = sum(record.seconds_by_step.values()) / record.num_read
    assert cutting.seconds_an_image(open_store(planned.root), "masks") == pytest.approx(seconds)
    assert cutting.cut(None, None, 60.0) == 10


def test_shards_are_pending_until_all_their_columns_are_committed(planned: RunSpec) -> None:
    assert planning.pending_shards(planned) == {0: 4, 1: 4, 2: 2}
    assert not planning.is_complete(planned)
    annotate(planned, 1)
    assert planning.pending_shards(planned) == {0: 4, 2: 2}
    annotate(planned, 0, 2)
    assert planning.pending_shards(planned) == {}
    assert planning.is_complete(planned)


def test_a_dataset_without_a_plan_is_not_complete(tmp_path: Path) -> None:
    assert not planning.is_complete(make_spec(tmp_path / "none"))


def test_inputs_are_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        planning.check_inputs(str(tmp_path / "dataset"), [str(tmp_path / "absent")])
    assert not (tmp_path / "dataset").exists()


def test_equal_settings_have_equal_fingerprints_and_neutral_ones_do_not_count(tmp_path: Path) -> None:
    weights = tmp_path / "any.safetensors"
    weights.write_bytes(b"fingerprints take a file by its bytes, whatever they are")

    def masks_fingerprint(*sets: str) -> str:
        config = load_config(sets=[f"segmenter.weights={weights}", *sets])
        return planning.describe_run("data", config).fingerprints["masks"]

    same = masks_fingerprint()
    assert masks_fingerprint("masks.points_per_batch=8", "segmenter.threads=1", "run.workers=2") == same
    assert masks_fingerprint("masks.points_per_side=8") != same
    assert masks_fingerprint("ingest.jpeg_quality=90") != same


def test_asking_for_a_generation_of_nothing_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="maskmill generate"):
        find_generation(open_store(str(tmp_path)))
