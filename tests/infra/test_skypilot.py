"""The SkyPilot task: SkyPilot's own reader takes it, where it is installed; its command holds anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

TASK = Path(__file__).parents[2] / "infra" / "skypilot" / "annotate.yaml"


def read() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TASK.read_text())
    return found


def test_what_the_command_names_is_given() -> None:
    task = read()
    for name in task["envs"]:
        assert f'"${name}"' in task["run"] + task["setup"], f"{name} is asked for and not used"
    assert task["resources"]["use_spot"] and "num_nodes" not in task, "one machine, one driver"
    assert all(value is None for value in task["secrets"].values()), "given where it is launched"


def test_skypilot_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sky = pytest.importorskip("sky", reason="pip install skypilot, in an environment of its own")
    task = sky.Task.from_yaml(str(TASK))
    assert {one.use_spot for one in task.resources} == {True}
    misspelt = tmp_path / "task.yaml"
    misspelt.write_text(TASK.read_text().replace("use_spot:", "use_spots:"))
    with pytest.raises(Exception, match="use_spots"):
        sky.Task.from_yaml(str(misspelt))
