"""Where an export says that a picture came from, without telling of the maker's machine.

How it works: a local path begins with the name of the input folder, or, of several inputs, below the folder
that they have in common, so that two inputs' pictures stay apart; what lies elsewhere (a manifest may name
it) by its file name alone. Addresses of S3 and the web are told whole: they mean the same everywhere. The
dataset's own records keep whole paths: it reads from there.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskmill.storage.plan.plan import Plan

_WILD = "*?["


def origins_of(plan: Plan) -> Callable[[str], str]:
    """`relative_to` the inputs of all of a dataset's plans."""
    return relative_to([one for part in plan.parts for one in part.inputs])


def relative_to(inputs: Sequence[str]) -> Callable[[str], str]:
    """What tells sources of a dataset as exports write them.

    Args:
        inputs: of the dataset's plans, absolute: folders, files, globs, addresses.
    """
    local = [one for one in inputs if Path(one).is_absolute()]
    folders = [_folder(one) for one in local]
    root = Path(os.path.commonpath(folders)) if folders else None
    if root is not None and str(root) in local:
        root = root.parent  # a folder that was asked for keeps its own name

    def told(source: str) -> str:
        """A source, tar::member inside a tar."""
        path, mark, member = source.partition("::")
        if not Path(path).is_absolute():
            return source
        inside = root is not None and root != Path(root.anchor) and Path(path).is_relative_to(root)
        short = Path(path).relative_to(root).as_posix() if inside and root is not None else Path(path).name
        return f"{short}{mark}{member}"

    return told


def _folder(path: str) -> str:
    """The folder that an input's pictures lie under: itself, a file's, or a glob's first."""
    parts = Path(path).parts
    plain = next((i for i, part in enumerate(parts) if any(sign in part for sign in _WILD)), len(parts))
    if plain < len(parts) and not Path(path).exists():
        return str(Path(*parts[:plain]))
    return path if not Path(path).suffix or Path(path).is_dir() else str(Path(path).parent)
