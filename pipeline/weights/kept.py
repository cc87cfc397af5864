"""Weights that were fetched by their word: where they lie on this machine, and what was recorded of them.

    CACHE/weights/<file>            whole and checked, or not there
    CACHE/weights/<file>.json       {"sha256", "url", "checked_against"}: what it was found to be at its fetch
    CACHE/weights/<file>.part       a fetch that goes on where it stopped

CACHE is $MASKMILL_CACHE, or ~/.cache/maskmill. Nothing here goes to a network: workers/jobs/fetch.py does.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from maskmill.pipeline.settings.published import Published, published, size_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What a file was found to be when it was fetched.

    Attributes:
        sha256: in hex.
        url: it came from.
        checked_against: whose sha256 it was held against; "" where it was recorded for the first time.
    """

    sha256: str
    url: str
    checked_against: str


def cache_home() -> Path:
    """Where what can be fetched again lies: $MASKMILL_CACHE, or ~/.cache/maskmill."""
    place = os.environ.get("MASKMILL_CACHE")
    return Path(place) if place else Path.home() / ".cache" / "maskmill"


def weights_folder() -> Path:
    """Where fetched weights lie."""
    return cache_home() / "weights"


def record_path(path: Path) -> Path:
    """Where the record of a fetched file lies."""
    return path.with_name(f"{path.name}.json")


def read_record(path: Path) -> Record | None:
    """The record of a fetched file; None if there is none that can be read."""
    try:
        return Record(**json.loads(record_path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def kept(one: Published) -> Path | None:
    """The fetched file; None if it was not fetched."""
    path = weights_folder() / one.file_name
    return path if path.is_file() else None


def absent(source: str) -> str:
    """What to say of a source that is no path here: the command that fetches it, where there is one."""
    one = published(source)
    if one is None:
        return f"{source} does not exist: check the path, or name a model of the hub as owner/name"
    return (
        f"{source} does not exist here and was not fetched: `maskmill fetch {one.name}` brings it "
        f"({size_text(one.size_bytes)}, {one.licence}, from {one.page}); or name the file's path"
    )
