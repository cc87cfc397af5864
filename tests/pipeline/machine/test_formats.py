"""A narrower number format is used where it is faster here, whatever the processor's flags say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from maskmill.pipeline.machine import formats

CPU = torch.device("cpu")


@pytest.mark.parametrize(("ratio", "used"), [(1.7, "bfloat16"), (0.5, "float32"), (1.0, "float32")])
def test_measured_once_a_machine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ratio: float,
    used: str,
) -> None:
    """The second question measures nothing; giving way is told."""
    asked: list[str] = []
    monkeypatch.setattr(formats, "measured_ratio", lambda dtype: asked.append(dtype) or ratio)
    assert formats.format_for("bfloat16", CPU, cache=tmp_path) == used
    assert formats.format_for("bfloat16", CPU, cache=tmp_path) == used
    assert asked == ["bfloat16"]
    assert ("float32 is used" in caplog.text) == (used == "float32")
    formats.format_for("float16", CPU, cache=tmp_path)
    assert asked == ["bfloat16", "float16"]
    assert len(json.loads((tmp_path / "number_formats.json").read_text())) == 2


def test_damaged_and_absent_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept and can't be read is measured again; no place to keep it is no error."""
    monkeypatch.setattr(formats, "measured_ratio", lambda dtype: 2.0)
    for text in ("not JSON", "[]", '{"x": 1}'):
        (tmp_path / "number_formats.json").write_text(text)
        assert formats.format_for("bfloat16", CPU, cache=tmp_path) == "bfloat16"
    (tmp_path / "file").write_text("")
    assert formats.format_for("bfloat16", CPU, cache=tmp_path / "file" / "folder") == "bfloat16"


def test_float32_and_gpus_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured for them."""
    monkeypatch.setattr(formats, "measured_ratio", lambda dtype: pytest.fail("measured"))
    assert formats.format_for("float32", CPU) == "float32"
    assert formats.format_for("bfloat16", torch.device("cuda")) == "bfloat16"


def test_measures_a_ratio() -> None:
    """A number of this machine."""
    assert 0.01 < formats.measured_ratio("bfloat16") < 100


def test_a_format_without_instructions_is_seen_on_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole product would take half a minute."""
    rows: list[int] = []

    def seconds(left: torch.Tensor, right: torch.Tensor) -> float:
        rows.append(len(left))
        return 1.0 if left.dtype == torch.float32 else slowness

    monkeypatch.setattr(formats, "_seconds", seconds)
    for slowness, seen in ((100.0, {32}), (1.1, {32, 1024}), (0.5, {32, 1024})):
        rows.clear()
        assert formats.measured_ratio("bfloat16") == pytest.approx(1 / slowness)
        assert set(rows) == seen
