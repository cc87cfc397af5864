"""The script for the day a GPU is there, rehearsed on the CPU: every section runs, with narrow models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import words
from benchmarks.gpu import page
from benchmarks.gpu.clock import Book

ROOT = Path(__file__).parent.parent


def test_rehearsal(tmp_path: Path) -> None:
    """No section fails or is left out; one JSON and one page."""
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [ROOT / "benchmarks/gpu/run.sh", tmp_path, "--tiny", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    results = json.loads((tmp_path / "gpu.json").read_text())
    wrong = {
        name: found
        for name, found in results.items()
        if isinstance(found, dict) and {"failed", "left_out"} & found.keys()
    }
    assert not wrong
    assert len(results) >= 15 and results["agreement, nano"]["masks"] > 0
    assert results["agreement, nano"]["equal_to_the_pixel"] == results["agreement, nano"]["masks_other"]
    for kind in words.KINDS:
        found = results[f"words, {kind}"]
        assert found["equal"] == found["images"] > 0 and found["passes_an_image"]["image"] == 1
    text = (tmp_path / "gpu.md").read_text()
    assert "## parts, vit_h" in text and "predicted_ms" in text


def test_a_section_that_fails_is_told(tmp_path: Path) -> None:
    """The others go on, and what would end too late doesn't begin."""

    def broken() -> None:
        raise RuntimeError("no such kernel")

    book = Book(tmp_path / "gpu.json", limit_s=60)
    book.section("broken", 0, broken)
    book.section("long", 61, lambda: {"ms": 1})
    book.section("good", 0, lambda: {"ms": 1})
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "no such kernel" in found["broken"]["failed"] and "left_out" in found["long"]
    assert found["good"] == {"ms": 1}
    assert "**Failed: broken**" in page.of(found)
