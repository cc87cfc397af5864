"""What the tests of retraining, gate and loop stand on; conftest.py makes one."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Place:
    """A dataset that is annotated by `config`, its truth, and a gate set of other pictures."""

    dataset: str
    inputs: tuple[str, ...]
    truth: tuple[Path, Path]
    gate: tuple[Path, Path]
