"""Commands typed in a folder full of files that are named like our modules and those we use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskmill.storage.dataset.generations import latest
from maskmill.storage.stores.open import open_store
from tests.fakes import write_pictures
from tests.flows.running import running_up, until
from tests.flows.runs.test_generate import ENTRY, QUICK

pytestmark = pytest.mark.ray

FILES = ("pipeline", "workers", "torch", "ray", "prefect", "uvicorn", "numpy", "json")
PACKAGES = ("storage", "flows")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder where every import of a neighbour is an error, and two pictures in `photos`."""
    place = tmp_path / "work"
    for name in PACKAGES:
        (place / name).mkdir(parents=True)
    for path in (*(place / f"{name}.py" for name in FILES), *(place / n / "__init__.py" for n in PACKAGES)):
        path.write_text("raise RuntimeError(f'{__file__} was imported')\n")
    write_pictures(place / "photos", 2)
    return place


def words(weights: Path) -> list[str]:
    return [word for pair in (*QUICK, f"segmenter.weights={weights}") for word in ("--set", pair)]


def maskmill(folder: Path, *given: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As the installed script: its own folder, not the current one, is on the path."""
    return subprocess.run(
        [sys.executable, "-P", "-c", ENTRY, *given],
        cwd=folder,
        env={
            **os.environ,
            "PREFECT_HOME": str(folder.parent / "prefect"),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def test_a_run_leaves_the_current_folder_alone(folder: Path, nano_weights: Path) -> None:
    done = maskmill(folder, "generate", "data", "--input", "photos", *words(nano_weights))
    assert done.returncode == 0, done.stderr
    assert "lost" not in done.stderr
    generation = latest(open_store(folder / "data"))
    assert generation is not None and generation.number == 1


@pytest.mark.drill
def test_a_deployment_of_services_started_there_leaves_it_alone(folder: Path, nano_weights: Path) -> None:
    with running_up(folder.parent, cwd=folder) as up:
        done = maskmill(folder, "deploy", "data", "--input", "photos", *words(nano_weights), **up.environment)
        assert done.returncode == 0, done.stderr
        run = up.start_run()
        until(lambda: up.look(run)["state_type"] in ("COMPLETED", "CRASHED", "FAILED"), "it ends")
        assert up.look(run)["state_type"] == "COMPLETED", up.look(run)["state"]
    generation = latest(open_store(folder / "data"))
    assert generation is not None and generation.number == 1
