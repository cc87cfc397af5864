"""`import maskmill` is light, what is public is said in one list, and Ray and Prefect stay away."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskmill
from tests.workers.published import Published, shapes

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "library.md"
HEAVY = ("ray", "prefect", "maskmill.flows", "typer", "fastapi")


def run(code: str, folder: Path) -> list[str]:
    """The lines that a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_it_loads_nothing_of_its_own_and_no_library(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import maskmill; print(*sorted(set(sys.modules) - before))"
    (line,) = run(code, tmp_path)
    assert "maskmill" in line.split()
    assert not [name for name in line.split() if "." in name and name.startswith("maskmill.")]
    assert not {"numpy", "torch", "PIL", "pyarrow"} & set(line.split())


def test_the_five_lines_load_neither_ray_nor_prefect(published: Published, tmp_path: Path) -> None:
    Image.fromarray(shapes(1)).save(tmp_path / "photo.png")
    code = f"""
import sys, maskmill
masks = maskmill.annotate("photo.png", masks={{"points_per_side": 2}})
masks.to_numpy(), masks.to_coco(), masks.show()
dataset = maskmill.open({published.store.root!r})
print(len(list(dataset)), len(dataset.to_pandas()) > 0, len(list(dataset.to_torch())))
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run(code, tmp_path) == ["9 True 9", ""]


def test_every_public_name_is_there_once() -> None:
    assert maskmill.__all__ == sorted(set(maskmill.__all__), key=lambda name: (name[0].islower(), name))
    for name in maskmill.__all__:
        assert getattr(maskmill, name).__name__ == name
        assert (getattr(maskmill, name).__doc__ or "").strip(), name
    assert set(maskmill.__all__) <= set(dir(maskmill))
    with pytest.raises(AttributeError, match="no attribute 'anotate'; it has Annotation, Annotator"):
        _ = maskmill.anotate  # type: ignore[attr-defined]


def test_mypy_sees_the_types(tmp_path: Path) -> None:
    """Of the lazily fetched names, from outside: a list gives a list, a picture its masks."""
    (tmp_path / "use.py").write_text(
        "import maskmill\n"
        "reveal_type(maskmill.annotate('a.jpg'))\n"
        "reveal_type(maskmill.annotate(['a.jpg']))\n"
        "reveal_type(maskmill.open('data'))\n"
        "reveal_type([sample.masks for sample in maskmill.open('data')])\n"
        "reveal_type(maskmill.open('data').to_torch(lambda sample: sample.key))\n"
    )
    done = subprocess.run(  # by the project's own settings: what `make check` has looked at is known already
        [sys.executable, "-m", "mypy", str(tmp_path / "use.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert [text.replace("builtins.", "") for text in told] == [
        "maskmill.masks.Masks",
        "list[maskmill.masks.Masks]",
        "maskmill.dataset.Dataset",
        "list[maskmill.masks.Masks]",
        "maskmill.torch_samples.TorchSamples[str]",
    ], done.stdout


def test_the_page_names_everything_that_is_public_and_nothing_else() -> None:
    text = PAGE.read_text()
    used = set(re.findall(r"maskmill\.([A-Za-z]\w*)", text.replace("maskmill.storage.errors", "")))
    assert used == set(maskmill.__all__)
    listed = re.findall(r"^\| `maskmill\.(\w+)", text, re.M)
    assert sorted(listed) == sorted(maskmill.__all__)


def test_the_page_names_members_that_there_are() -> None:
    """`masks.x` and `dataset.x` of the page, in code and tables."""
    text = PAGE.read_text()
    for word, kind in (("masks", maskmill.Masks), ("sample", maskmill.Sample), ("dataset", maskmill.Dataset)):
        names = set(re.findall(rf"\b{word}\.(?!png)([a-z]\w*)", text))
        fields = set(kind.__dataclass_fields__)
        assert names and not {name for name in names if not hasattr(kind, name)} - fields


def test_the_code_of_the_page_runs(published: Published, tmp_path: Path) -> None:
    """Block after block in one process, in a folder with a photo and a dataset of the page's names."""
    for name in ("photo", "other"):
        Image.fromarray(np.asarray(shapes(len(name), 96, 128))).save(tmp_path / f"{name}.jpg")
    (tmp_path / "my-dataset").symlink_to(published.store.root)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks) >= 5
    run("\n".join(blocks), tmp_path)
    assert (tmp_path / "masks.png").exists() and (tmp_path / "coco.json").exists()
