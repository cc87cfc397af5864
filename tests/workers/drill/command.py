"""`maskmill drill` as people call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
ENTRY = "from maskmill.flows.cli import main; main()"
SUMS = {"lost": 0, "duplicated": 0, "different": 0, "undetected": 0, "problems": []}
"""What a report of a sound drill says."""


def drill(*words: str, environment: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "drill", "--json", "--debug", *words],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def sums_of(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in SUMS}
