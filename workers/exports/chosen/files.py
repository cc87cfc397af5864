"""Classes as people write them down: names in a line or a file, a map in TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

from maskmill.storage.errors import InputError
from maskmill.storage.json_text import why_unreadable


def class_names(text: str) -> tuple[str, ...]:
    """ "cat, dog" -> ("cat", "dog"); of a file the lines, without those that are empty or begin with #.

    Raises:
        InputError: a file that cannot be read.
    """
    if not text:
        return ()
    path = Path(text)
    if "," not in text and (path.suffix or "/" in text):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise InputError(f"{text}: the classes cannot be read ({exc})") from exc
        return tuple(name for line in lines if (name := line.strip()) and not name.startswith("#"))
    return tuple(name for part in text.split(",") if (name := part.strip()))


def read_class_map(path: Path | None) -> dict[str, str]:
    """A file of `"phrase" = "class"` lines; no file is an empty map.

    Raises:
        InputError: it cannot be read, is no TOML, or holds anything but texts.
    """
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{path}: the class map cannot be read ({why_unreadable(exc)})") from exc
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{path}: the class map is not TOML: {why_unreadable(exc)}") from exc
    wrong = next((name for name, value in found.items() if not isinstance(value, str)), None)
    if wrong is not None:
        raise InputError(f'{path}: {wrong} must be a class in quotes: "{wrong}" = "cat"')
    return found
