"""`log`, `diff`, `show`, `query` and `tag` as a user types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from maskmill.flows.cli import app
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.ingest import ingest_spec, ingest_stages
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.run.work_settings import WorkSettings
from maskmill.workers.shard.turn import run_shard
from tests.workers.measure.test_compare import change_masks
from tests.workers.published import CAPTION, Published, publish_dataset, write_inputs


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset with two generations."""
    data = publish_dataset(tmp_path_factory.mktemp("catalog"))
    change_masks(data)
    return data.spec.root


def test_log_tells_lineage_models_settings_and_tags(two: str) -> None:
    assert run("tag", two, "looked-at", "1", "--note", "fine").exit_code == 0
    entries = json.loads(run("log", two, "--json").stdout)
    assert [(entry["number"], entry["parent"]) for entry in entries] == [(2, 1), (1, None)]
    assert entries[1]["tags"] == ["looked-at"]
    assert entries[0]["changed"]["masks.predicted_iou"] == [None, 0.9]
    assert entries[0]["versions"]["masks"] == {"2" * 16: 3}
    shown = run("log", two).stdout
    assert "generation 1  (looked-at)" in shown
    assert "masks.predicted_iou" in shown


def test_diff_tells_what_changed_and_draws_it(two: str, tmp_path: Path) -> None:
    picture = tmp_path / "diff.png"
    shown = run("diff", two, "1", "2", "--picture", picture)
    assert shown.exit_code == 0, shown.stderr
    assert "masks added" in shown.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(run("diff", two, "1", "--json").stdout)["masks"]["removed"] == 1
    assert "no shard has other bytes" in run("diff", two, "2", "2").stdout


def test_show_has_every_column_and_where_it_came_from(two: str, tmp_path: Path) -> None:
    found = json.loads(run("show", two, "000000003", "--json").stdout)
    assert found["planned"]["source"].endswith(".jpg")
    assert [column["column"] for column in found["columns"]] == ["images", "masks"]
    assert found["columns"][1]["models"] == {"segmenter": "fake"}
    assert found["columns"][1]["value"]["image"]["image_id"] == 3
    shown = run("show", two, "3", "--picture", tmp_path / "3.png", "--generation", "1")
    assert "1111111111111111" in shown.stdout
    columns = [line for line in shown.stdout.splitlines() if line.startswith("  ")]
    assert columns and all(len(line.split()) > 1 for line in columns), "a name without a value"
    assert "not set" not in shown.stdout and re.search(
        r"^  size +[\d.]+ (bytes|kB)$", shown.stdout, re.MULTILINE
    )
    assert (tmp_path / "3.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_only_taken_in_can_be_looked_at(tmp_path: Path) -> None:
    write_inputs(tmp_path / "inputs")
    root = str(tmp_path / "dataset")
    make_plan(open_store(root), [str(tmp_path / "inputs")], shard_size=8)
    planned = run("show", root, "1")
    assert planned.exit_code == 0 and "not taken in yet" in planned.stderr
    assert "maskmill show" not in run("status", root).stdout

    spec = ingest_spec(root, IngestSettings(), WorkSettings())
    stages = ingest_stages(spec)
    run_shard(stages, ShardTask(shard=0, attempt="1" * 8))
    assert "maskmill show" in run("status", root).stdout
    found = [json.loads(run("show", root, str(i), "--json").stdout) for i in range(1, 9)]
    assert {one["generation"] for one in found} == {None}
    captions = [one["columns"][0]["value"]["caption"] for one in found if not one["columns"][0]["rejected"]]
    assert captions.count(CAPTION) == 1
    rejected = [one for one in found if one["columns"][0]["rejected"]]
    assert [one["columns"][0]["rejected"]["reason"] for one in rejected] == ["not_an_image"]

    shown = run("show", root, "1", "--picture", tmp_path / "1.png")
    assert "in no generation yet" in shown.stdout and shown.exit_code == 0
    assert (tmp_path / "1.png").read_bytes().startswith(b"\x89PNG")
    refused = run("show", root, rejected[0]["key"], "--picture", tmp_path / "2.png")
    assert refused.exit_code == 3 and "it is rejected" in " ".join(refused.stderr.split())
    assert run("show", root, "1", "--generation", "1").exit_code == 2


def test_show_says_why_an_image_has_no_masks(published: Published) -> None:
    shows = (json.loads(run("show", published.spec.root, str(i), "--json").stdout) for i in range(1, 11))
    columns = [column for found in shows for column in found["columns"]]
    assert [c["rejected"]["reason"] for c in columns if c["rejected"]] == ["not_an_image"]


def test_query_prints_rows(two: str) -> None:
    shown = run("query", two, "select count(*) as masks from masks", "--json")
    assert json.loads(shown.stdout)["rows"][0]["masks"] > 10
    assert "masks" in run("query", two, "select count(*) as masks from masks").stdout


def test_a_wide_row_is_readable_at_80_columns(two: str) -> None:
    shown = run("query", two, "select * from images order by key limit 2").stdout
    assert [line for line in shown.splitlines() if line.startswith("row ")] == ["row 1", "row 2"]
    lines = shown.splitlines()
    assert any(line.split() == ["key", "000000001"] for line in lines)
    assert any(
        line.split()[:1] == ["sha256"] and len(line.split()[1]) == 64 for line in lines if line.split()
    )


def test_tags_name_generations_everywhere(two: str, tmp_path: Path) -> None:
    run("tag", two, "first", "1")
    assert json.loads(run("tag", two, "--json").stdout)["first"]["generation"] == 1
    exported = run("export", two, tmp_path / "out", "--generation", "first", "--json")
    assert json.loads(exported.stdout)["generation"] == 1
    assert run("tag", two, "first", "--remove").exit_code == 0
    assert "first" not in run("tag", two).stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("log", "{tmp}/none"), 2, "holds no generation"),
        (("diff", "{two}", "nine"), 2, "use a number"),
        (("diff", "{two}", "9"), 2, "no generation 9"),
        (("show", "{two}", "99"), 2, "there is no image '99'"),
        (("query", "{two}", "drop everything"), 2, "cannot be answered"),
        (("query", "{two}", ""), 2, "the query is empty"),
        (("query", "{two}", "select * from '/etc/passwd'"), 2, "the tables are images, shards, masks"),
        (("query", "{two}", "set threads = 1"), 2, "--unsafe"),
        (("tag", "{two}", "UPPER"), 2, "cannot be a tag"),
    ],
)
def test_mistakes_are_named(
    words: tuple[str, ...], code: int, message: str, two: str, tmp_path: Path
) -> None:
    shown = run(*(word.format(two=two, tmp=tmp_path) for word in words))
    assert shown.exit_code == code
    assert message in " ".join(shown.stderr.split())
