"""Pictures that captioners are asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskmill.pipeline.words.caption import Subject


def subjects(images: Sequence[Any]) -> list[Subject]:
    """Them, under keys of their own."""
    return [Subject(f"{i:09d}", image) for i, image in enumerate(images)]
