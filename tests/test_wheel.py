"""What `pip install maskmill` brings: one package, every file of the tree, and nothing a folder can hide.

The wheel is built from a copy of the tree and unpacked beside the other packages' folder, as pip does it,
without asking an index.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.workers.published import shapes

ROOT = Path(__file__).parent.parent
LAYERS = ("pipeline", "storage", "workers", "flows")
FIVE_LINES = """
import sys
import maskmill
masks = maskmill.annotate("photos/0.png", masks={"points_per_side": 4})
dataset = maskmill.open("data")
assert masks.to_numpy().shape == (len(masks), 48, 64)
assert len(list(dataset)) == len(dataset) == 2
assert not {"ray", "prefect"} & set(sys.modules)
print(maskmill.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in (*LAYERS, "maskmill"):
        shutil.copytree(
            ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.nb[ic]")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    code = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    built = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("maskmill-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_it_has_one_package_at_its_top(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"maskmill"}


def test_it_has_every_file_of_the_tree(wheel: Path) -> None:
    """Code, and the data that code reads: weights, vocabularies, recipes, the page, types."""
    ending = (".py", ".toml", ".txt", ".safetensors", ".json", ".typed", ".html", ".js", ".css", ".svg")
    wanted = {
        f"maskmill/{path.relative_to(ROOT)}"
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*")
        if path.suffix in ending
    }
    wanted |= {f"maskmill/{path.name}" for path in (ROOT / "maskmill").iterdir() if path.suffix in ending}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == wanted


def test_what_tests_import_is_the_tree() -> None:
    import maskmill
    from maskmill.flows import cli
    from maskmill.pipeline import rle

    assert Path(str(maskmill.__file__)).resolve() == ROOT / "maskmill" / "__init__.py"
    assert Path(cli.__file__).resolve() == ROOT / "flows" / "cli.py"
    assert Path(rle.__file__).resolve() == ROOT / "pipeline" / "rle.py"


@pytest.mark.ray
def test_it_works_in_a_folder_with_files_of_its_layers_names(installed: Path, tmp_path: Path) -> None:
    for name in ("pipeline.py", "workers.py", "flows.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.fromarray(shapes(i)).save(tmp_path / "photos" / f"{i}.png")

    # The wheel's files come before those of the development tree, whose finder is on the same path
    environment = {**os.environ, "PYTHONPATH": str(installed), "MASKMILL_HOME": str(tmp_path / "home")}
    environment |= {"PREFECT_HOME": str(tmp_path / "prefect"), "HOME": str(tmp_path / "home")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    sets = ("--set", "masks.points_per_side=4", "--set", "run.workers=1")
    made = json.loads(run("-m", "maskmill", "generate", "data", "--input", "photos", *sets, "--json"))
    assert made["generation"] == 1
    where = Path(run("-c", FIVE_LINES).strip())
    assert where == installed / "maskmill" / "__init__.py"
    assert "generation" in run("-m", "maskmill", "status", "data")
