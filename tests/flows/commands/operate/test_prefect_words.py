"""`maskmill prefect ...`: Prefect's real command line, with our server, secret and packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskmill.flows.services.prefect.pools import HEARTBEAT_S


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a user who has no Prefect settings, in a folder of their own."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**unset, "MASKMILL_HOME": str(tmp_path / "home"), "PREFECT_HOME": str(tmp_path / "prefect")}


def prefect(*words: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "maskmill", "prefect", *words],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_its_settings_are_those_our_runs_have_and_a_users_own_are_kept(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Options are Prefect's, `--help` of ours does not eat them; its exit code comes back."""
    environment["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    environment["PREFECT_CLIENT_MAX_RETRIES"] = "3"
    (tmp_path / "prefect.py").write_text("raise SystemExit('a module of the current folder ran')")
    done = prefect("config", "view", "--show-sources", environment=environment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "PREFECT_API_URL='http://127.0.0.1:9/api' (from env)" in shown
    assert "PREFECT_CLIENT_MAX_RETRIES='3' (from env)" in shown, "what a user says counts"
    assert f"PREFECT_FLOWS_HEARTBEAT_FREQUENCY='{HEARTBEAT_S}' (from env)" in shown


def test_what_prefect_refuses_is_its_own_message_and_exit_code(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = prefect("no-such-word", environment=environment, folder=tmp_path)
    assert done.returncode not in (0, None)
    assert "no-such-word" in done.stdout + done.stderr
    assert "maskmill" not in (done.stdout + done.stderr).replace(str(tmp_path), "")
