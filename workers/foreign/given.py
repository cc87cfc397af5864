"""The formats of annotations that can be imported whole, and which reader reads which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskmill.storage.errors import InputError
from maskmill.workers.foreign import coco, sa1b
from maskmill.workers.foreign.annotations import ForeignSet

FORMATS = (coco.FORMAT, sa1b.FORMAT)


def read_given(paths: Sequence[Path], format: str) -> ForeignSet:
    """Reads annotation files whole.

    Args:
        paths: of COCO, one JSON; of SA-1B, JSON files, folders of them, or tars.
        format: "coco" or "sa1b".

    Raises:
        InputError: a file is missing, or not of this format.
    """
    if format == coco.FORMAT:
        if len(paths) != 1:
            told = ", ".join(str(path) for path in paths[:3]) or "none"
            raise InputError(
                f"COCO annotations are one JSON file, not {len(paths)} ({told}): import each with a "
                "--column of its own, or merge them with ids that don't repeat"
            )
        return coco.read_coco(paths[0])
    if format != sa1b.FORMAT:
        raise InputError(f"format={format!r} is unknown: use one of {', '.join(FORMATS)}")
    return sa1b.read_sa1b(paths)
