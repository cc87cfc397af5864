"""`maskmill import` of an editor's file as it is typed; `query` to files, `export` with a selection."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from maskmill.flows.cli import app
from tests.workers.published import NUM_ANNOTATED, publish_dataset
from tests.workers.tools.editors import cvat_file, erase_cvat


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    return publish_dataset(tmp_path).spec.root


def test_edits_are_published_as_reviews(dataset: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("export", dataset, out, "--format", "cvat").exit_code == 0
    edited = cvat_file(out, erase_cvat)
    first = run("import", dataset, edited, "--format", "cvat", "--who", "Ana", "--json")
    assert first.exit_code == 0, first.stderr
    told = json.loads(first.stdout)
    assert told["pictures"] == {"edited": 1, "as they were": NUM_ANNOTATED - 1}
    assert (told["people"], told["generation"]) == ({"Ana": 1}, 2)
    again = run("import", dataset, edited, "--format", "cvat", "--who", "Ana", "-g", "1", "--json")
    assert json.loads(again.stdout)["pictures"] == {"taken before": 1, "as they were": NUM_ANNOTATED - 1}
    assert json.loads(again.stdout)["generation"] == 2
    shown = run("import", dataset, edited, "--format", "cvat", "--who", "Ana", "-g", "1").stdout
    assert "Taken back: nothing, no picture has new edits; 9 pictures read" in shown
    assert "pictures taken before" in shown and "don't have" not in shown


def test_pictures_that_a_file_lacks_are_told_of(dataset: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("export", dataset, out, "--format", "cvat", "--limit", "2").exit_code == 0
    shown = run("import", dataset, cvat_file(out, erase_cvat), "--format", "cvat", "--who", "Ana")
    assert "Taken back: edits of 1 picture; 2 pictures read" in shown.stdout
    (line,) = [
        one for one in shown.stdout.splitlines() if one.startswith("pictures that the files don't have")
    ]
    assert line.endswith(f"{NUM_ANNOTATED - 2}, as they were")


@pytest.mark.parametrize(
    "words",
    [("--format", "cvat", "--by", "person"), ("--format", "cvat", "--column", "x"), ("--generation", "1")],
)
def test_options_that_say_nothing_are_refused(words: tuple[str, ...], dataset: str, tmp_path: Path) -> None:
    (tmp_path / "file.xml").write_text("<annotations/>")
    shown = run("import", dataset, tmp_path / "file.xml", *words)
    assert shown.exit_code == 2 and "error" in shown.stderr


def test_queries_go_to_files(dataset: str, tmp_path: Path) -> None:
    sql = "select key, area_px from masks order by key, area_px"
    rows = list(csv.reader(io.StringIO(run("query", dataset, sql, "--csv").stdout)))
    written = run("query", dataset, sql, "--parquet", tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert rows[0] == ["key", "area_px"] and len(rows) - 1 == table.num_rows > 0
    assert f"wrote {table.num_rows} rows" in written.stdout
    assert (
        len(list(csv.reader(io.StringIO(run("query", dataset, sql, "--csv", "--max-rows", "2").stdout)))) == 3
    )


def test_an_export_says_what_it_left_out(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('"*" = "thing"')
    words = ("--classes", "thing", "--class-map", tmp_path / "map.toml", "--limit", "3")
    shown = run("export", dataset, tmp_path / "out", "--format", "coco", *words)
    assert shown.exit_code == 0, shown.stderr
    told = {line.rpartition("  ")[0].strip(): line.rpartition("  ")[2] for line in shown.stdout.splitlines()}
    assert told["images"] == "3" and int(told["left out: other_class"]) > 0
    for wrong, message in (
        (("--split", "50/60"), "100 together"),
        (("--classes", "a,a"), "name of its own"),
        (("--where", "nothing = 1"), "cannot be answered"),
    ):
        failed = run("export", dataset, tmp_path / "new", "--format", "coco", *wrong)
        assert failed.exit_code == 2 and message in failed.stderr, failed.stderr


SQUARE = [4, 4, 40, 4, 40, 30, 4, 30]


def coco_of(path: Path, *shapes: object, file_name: str = "0.jpg") -> Path:
    entry = {"id": 1, "file_name": file_name, "width": 64, "height": 48}
    rows = [
        {"id": i, "image_id": 1, "category_id": 1, "segmentation": one} for i, one in enumerate(shapes, 1)
    ]
    path.write_text(json.dumps({"images": [entry], "annotations": rows, "categories": []}))
    return path


@pytest.mark.parametrize(
    ("shapes", "code", "told"),
    [
        (([SQUARE], [[1, 2, 3]]), 0, "bad_polygon: no ring with three points"),
        (
            ([SQUARE], {"size": [48, 64], "counts": [10, 5]}),
            0,
            "bad_run_lengths: run lengths that don't add up",
        ),
        (([SQUARE],), 0, "without annotations: not_annotated"),
        (([[1, 2, 3]], [[9e99] * 6]), 2, "none of 2 annotations could be taken"),
    ],
)
def test_an_imports_account_says_what_its_reasons_mean(
    shapes: tuple[object, ...], code: int, told: str, dataset: str, tmp_path: Path
) -> None:
    shown = run("import", dataset, coco_of(tmp_path / "given.json", *shapes))
    assert shown.exit_code == code
    assert told in " ".join((shown.stdout + shown.stderr).split())


def test_several_coco_files_are_refused_with_what_to_do(dataset: str, tmp_path: Path) -> None:
    files = [coco_of(tmp_path / name, [SQUARE]) for name in ("one.json", "two.json")]
    shown = run("import", dataset, *files)
    assert shown.exit_code == 2
    assert "one.json" in shown.stderr and "--column of its own" in " ".join(shown.stderr.split())
