"""`log`, `diff`, `show`, `query` and `tag` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from maskmill.flows.cli import app
from tests.workers.measure.test_compare import change_masks
from tests.workers.published import Published, publish_dataset


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
    assert (tmp_path / "3.png").read_bytes().startswith(b"\x89PNG")


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
