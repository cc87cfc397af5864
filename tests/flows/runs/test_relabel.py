"""Relabel: a plan of what is stale, caps, masks from candidates without Prefect, Ray or a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from maskmill.flows.cli import app
from maskmill.flows.config import ConfigError, RunConfig, load_config
from maskmill.flows.runs.steps import planning, publishing
from maskmill.flows.runs.steps.relabel_plan import RelabelCaps, make_relabel_plan, plan_lines, settings_of
from maskmill.storage.dataset.generations import latest
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.picture_sets import PictureSet, save_set
from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.drivers.one_writer import writing
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from tests.fakes import write_pictures

SETS = (
    "masks.points_per_side=4",
    "masks.predicted_iou=0.2",
    "masks.stability=0.0",
    "masks.keep_candidates=true",
    "masks.candidate_iou=0.1",
    "masks.candidate_stability=0.0",
    "run.shard_size=1",
    "segmenter.threads=1",
)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images in three shards, annotated with candidates, and published: `data` beside `inputs`."""
    folder = tmp_path_factory.mktemp("relabel") / "place"
    write_pictures(folder / "inputs", 3)
    annotate(str(folder / "data"), [str(folder / "inputs")], load_config("nano", sets=SETS))
    return folder.rename(folder.with_name("pristine"))


@pytest.fixture
def dataset(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The pristine one, where it was made: its plan names its inputs there."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    place = pristine.with_name("place")
    shutil.copytree(pristine, place)
    yield str(place / "data")
    shutil.rmtree(place)


def annotate(root: str, inputs: list[str], config: RunConfig) -> None:
    """What `generate` does, in this process."""
    planning.plan_images(root, inputs, config, None)
    spec = planning.describe_run(root, config)
    stages = build_stages(spec)
    for shard in planning.pending_shards(spec):
        run_shard(stages, ShardTask(shard=shard, attempt=new_attempt()))
    assert publishing.publish_and_verify(spec, config).check.ok


def test_thresholds_are_changed_without_a_model_and_done_once(dataset: str) -> None:
    done = run("relabel", dataset, "--set", "masks.predicted_iou=0.4", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["published"], report["generation"], report["used_model"]) == (True, 2, False)
    assert report["columns"] == {"masks": 3}
    assert report["reasons"] == ["masks.predicted_iou: 0.2 -> 0.4"]
    assert report["diff"]["settings"][0]["after"] == 0.4
    assert report["diff"]["masks"]["added"] == 0, "a higher threshold adds nothing but what NMS lets up"
    generation = latest(open_store(dataset))
    assert generation is not None and generation.made_by == "relabel"
    assert generation.settings["masks"]["predicted_iou"] == 0.4

    again = json.loads(run("relabel", dataset, "--json").stdout)
    assert (again["published"], again["stale_shards"], again["generation"]) == (False, 0, 2)
    assert "Nothing to do" in run("relabel", dataset).stdout


def test_caps_leave_the_rest_for_the_next_time(dataset: str) -> None:
    words = ("relabel", dataset, "--set", "masks.predicted_iou=0.4", "--max-shards", "2", "--json")
    first = json.loads(run(*words).stdout)
    assert (first["done_shards"], first["left_shards"], first["generation"]) == (2, 1, 2)
    rows = latest_rows(dataset)
    assert len({row.fingerprint for row in rows if row.column == "masks"}) == 2, "a mixed generation"
    second = json.loads(run(*words).stdout)
    assert (second["done_shards"], second["left_shards"], second["generation"]) == (1, 0, 3)
    assert len({row.fingerprint for row in latest_rows(dataset) if row.column == "masks"}) == 1


def latest_rows(dataset: str) -> tuple[GenerationRow, ...]:
    generation = latest(open_store(dataset))
    assert generation is not None
    return generation.rows()


def test_the_plan_names_columns_reasons_and_cost(dataset: str) -> None:
    config = settings_of(dataset, None, None, ["masks.stability_offset=0.5"])
    spec = planning.describe_run(dataset, config)
    plan = make_relabel_plan(spec, config, RelabelCaps())
    assert plan.columns == {"candidates": 3, "masks": 3}
    assert plan.needs_model
    assert plan.gpu_hours is not None and plan.gpu_hours > 0
    assert plan.reasons == ("masks.stability_offset: 1.0 -> 0.5",)
    capped = make_relabel_plan(spec, config, RelabelCaps(max_gpu_hours=1e-9))
    assert len(capped.chosen) == 1, "a relabel always gets on by one shard"
    assert capped.all_gpu_hours == plan.gpu_hours
    worst = make_relabel_plan(spec, config, RelabelCaps(order="worst"))
    assert sorted(worst.chosen) == sorted(plan.chosen)
    assert plan.set_images is None


def test_a_set_is_told_beside_what_its_shards_hold(tmp_path: Path) -> None:
    write_pictures(tmp_path / "inputs", 3)
    config = load_config("nano", sets=["run.shard_size=2", "segmenter.threads=1"])
    root = str(tmp_path / "data")
    planning.plan_images(root, [str(tmp_path / "inputs")], config, None)
    save_set(
        open_store(root),
        PictureSet(
            name="one", keys=("000000002",), generation=0, said="", who="ana", created_utc="2026-11-27"
        ),
    )
    plan = make_relabel_plan(planning.describe_run(root, config), config, RelabelCaps(only="one"))
    assert (plan.chosen, plan.set_images) == ({0: 2}, 1)
    assert ("  of the set", "1 of these images; shards are made whole") in plan_lines(plan)


def test_a_dry_run_shows_the_plan_and_writes_nothing(dataset: str) -> None:
    before = sorted(info.name for info in open_store(dataset).list())
    shown = run("relabel", dataset, "--set", "masks.box_nms=0.5", "--dry-run")
    assert "no model is loaded" in shown.stdout
    assert "masks.box_nms: 0.7 -> 0.5" in shown.stdout
    assert json.loads(run("relabel", dataset, "--dry-run", "--json").stdout)["stale_shards"] == 0
    assert sorted(info.name for info in open_store(dataset).list()) == before


def test_a_dry_run_says_what_going_back_to_stored_masks_will_change(dataset: str) -> None:
    """As after `promote --to 0`: nothing is to be made, and all the masks change."""
    assert run("relabel", dataset, "--set", "masks.box_nms=0.5").exit_code == 0
    back = ("relabel", dataset, "--set", "masks.box_nms=0.7")
    plan = json.loads(run(*back, "--dry-run", "--json").stdout)
    assert (plan["stale_shards"], plan["stored"]) == (0, {"masks": 3})
    assert plan["reasons"] == ["masks.box_nms: 0.5 -> 0.7"]
    shown = run(*back, "--dry-run").stdout
    assert "3 shards change to a version that is stored already" in shown
    done = json.loads(run(*back, "--json").stdout)
    assert (done["published"], done["generation"]) == (True, 3)
    assert json.loads(run(*back, "--dry-run", "--json").stdout)["stored"] == {}


def test_new_images_of_the_old_places_are_found(dataset: str) -> None:
    from maskmill.flows.runs.relabel import plan_new_images

    write_pictures(Path(dataset).with_name("inputs"), 5)
    config = settings_of(dataset, None, None, ())
    plan_new_images(dataset, None, config)  # cut as the dataset was: one image a shard
    plan = make_relabel_plan(planning.describe_run(dataset, config), config, RelabelCaps())
    assert (plan.new_shards, plan.stale_shards) == (2, 2)
    assert plan.reasons == ("2 shards are new",)
    assert plan.columns == {"images": 2, "candidates": 2, "masks": 2}


def test_a_second_writer_is_refused_and_a_bad_cap_too(dataset: str) -> None:
    with writing(open_store(dataset), "retrain"):
        refused = run("relabel", dataset, "--json")
    assert refused.exit_code == 3
    assert "retrain on" in refused.stderr and "works on this dataset" in " ".join(refused.stderr.split())
    assert run("relabel", dataset, "--order", "newest").exit_code == 2
    with pytest.raises(ConfigError, match="use more than 0"):
        RelabelCaps(max_gpu_hours=-1)


def test_what_another_run_made_is_carried_over(dataset: str) -> None:
    """A run that keeps no candidates still publishes those that are there."""
    config = settings_of(dataset, None, None, ["masks.keep_candidates=false"])
    spec = planning.describe_run(dataset, config)
    assert list(spec.fingerprints) == ["images", "masks"]
    published = publishing.publish_and_verify(spec, config)
    assert not published.is_new, "the same rows: nothing to publish"
    assert {row.column for row in latest_rows(dataset)} == {"images", "candidates", "masks"}
