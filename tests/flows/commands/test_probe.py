"""`maskmill probe`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskmill.flows.cli import app
from maskmill.storage.stores.local import LocalStore


def test_a_folder_that_keeps_its_promises(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["probe", str(tmp_path / "place"), "--json"])
    found = json.loads(shown.stdout)
    assert (shown.exit_code, found["kept"]) == (0, True)
    assert {"race", "multipart", "listing", "odd names"} <= {one["name"] for one in found["promises"]}
    assert list(tmp_path.iterdir()) == []


def test_a_broken_promise_is_shown_and_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "put_if_absent", lambda store, name, data: store.put(name, data) or True)
    shown = CliRunner().invoke(app, ["probe", str(tmp_path)])
    assert shown.exit_code == 1
    words = " ".join(shown.stdout.split())
    assert "BROKEN" in words and "the second writer of a name won too" in words
    assert "no dataset is safe here" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_none_is_the_callers_mistake() -> None:
    shown = CliRunner().invoke(app, ["probe", "gs://bucket/x"])
    assert shown.exit_code == 2
    assert "use a local path or s3://bucket/prefix" in " ".join(shown.stderr.split())
