"""`preview` and `export` of columns other than masks: an import, and reviews of some of the images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskmill.flows.cli import app
from maskmill.flows.config import load_config
from maskmill.workers.run.recipe import recipe_names
from tests.workers.published import Published

BOX = [[4, 4, 40, 4, 40, 30, 4, 30]]


def done(*words: str | Path) -> str:
    shown = CliRunner().invoke(app, [str(word) for word in words])
    assert shown.exit_code == 0, shown.stderr
    return shown.stdout


@pytest.fixture(scope="module")
def looked_at(published: Published, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset with an import of two images, and reviews of two others of its nine."""
    folder = tmp_path_factory.mktemp("columns")
    root = shutil.copytree(published.spec.root, folder / "dataset")
    for name, images in (("given", ("0.jpg", "1.jpg")), ("people", ("1.jpg", "2.jpg"))):
        (folder / f"{name}.json").write_text(json.dumps(coco(images)))
    done("import", root, folder / "given.json")
    truth = ("--truth", folder / "people.json", published.inputs)
    done("review", root, *truth, "--images", "2")
    return str(root)


def coco(names: tuple[str, ...]) -> dict[str, object]:
    images = [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)]
    rows = [{"id": i, "image_id": i, "category_id": 1, "segmentation": BOX} for i in range(len(names))]
    return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "thing"}]}


@pytest.mark.parametrize("column", ["masks", "given", "review"])
def test_a_column_is_shown(column: str, looked_at: str, tmp_path: Path) -> None:
    done("preview", looked_at, "--out", tmp_path / "look", "--column", column)
    page = (tmp_path / "look" / "index.html").read_text()
    assert page.count("<img") == (9 if column == "masks" else 2)
    assert (tmp_path / "look" / "sheet.png").stat().st_size > 5000


@pytest.mark.parametrize("format", ["sa1b", "coco", "yolo", "hf"])
def test_reviews_of_a_part_are_exported(format: str, looked_at: str, tmp_path: Path) -> None:
    words = ("--column", "review", "--format", format, "--json")
    report = json.loads(done("export", looked_at, tmp_path / "out", *words))
    assert (report["num_images"], report["num_masks"]) == (2, 2)


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_can_keep_its_candidates(recipe: str) -> None:
    weights = ["segmenter.weights=/some/where.pth"]
    kept = load_config(recipe, sets=["masks.keep_candidates=true", *weights]).masks
    assert kept.candidate_iou <= kept.predicted_iou and kept.candidate_stability <= kept.stability
