"""JSON that others wrote: read without a crash, and written again as JSON.

Python reads and writes more than JSON has (NaN, infinities, halves of UTF-16 pairs); other readers refuse it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from maskmill.storage.errors import InputError

MAX_DEPTH = 64
MAX_SHOWN = 40
MAX_NAME = 300


def load_json(data: bytes, where: str, what: str) -> dict[str, Any]:
    """A file's JSON object.

    Args:
        data: the file's bytes.
        where: it lies, for people.
        what: it should be: "a COCO annotations file".

    Raises:
        InputError: no JSON, nested too deeply, or no object.
    """
    content = _load(data, where, what)
    if not isinstance(content, dict):
        raise InputError(f"{where}: not {what} (it is no JSON object{_cure_of(content)})")
    return content


def load_list(data: bytes, where: str, what: str) -> list[Any]:
    """A file's JSON list; see `load_json`. Raises InputError."""
    content = _load(data, where, what)
    if not isinstance(content, list):
        raise InputError(f"{where}: not {what} (it is no JSON list)")
    return content


def dump_json(record: Mapping[str, Any]) -> bytes:
    """A record as one line of UTF-8; where words of others in it aren't JSON, as `plain` makes them."""
    try:
        return _dump(record)
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        return _dump(plain(record))


def plain(value: Any, depth: int = 0) -> Any:
    """The same with what JSON can't hold, or readers won't, replaced.

    Args:
        value: as `json.loads` gives it.
        depth: of lists and objects around it; from `MAX_DEPTH` on they are null, as are NaN and infinities.
            Halves of UTF-16 pairs become U+FFFD.
    """
    if isinstance(value, str):
        return (
            value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        )
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth >= MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {plain(name): plain(item, depth + 1) for name, item in value.items()}
    return [plain(item, depth + 1) for item in value]


def shown(value: object) -> str:
    """A value for a message: short, and safe however large or deep it is."""
    if isinstance(value, Mapping | list | tuple):
        return f"a {'list' if isinstance(value, list | tuple) else 'object'} of {len(value)}"
    text = repr(value[: 2 * MAX_SHOWN]) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def printable(text: str) -> str:
    """A name for a message: what a terminal would obey, or can't show, as U+FFFD, and not too long."""
    short = text if len(text) <= MAX_NAME else text[:MAX_NAME] + "..."
    return short if short.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in short)


def _load(data: bytes, where: str, what: str) -> Any:
    try:
        return json.loads(data)
    except RecursionError as exc:
        raise InputError(f"{where}: not {what} (it is nested too deeply)") from exc
    except ValueError as exc:
        raise InputError(f"{where}: not {what} ({_why_no_json(data, exc)})") from exc


def _cure_of(content: Any) -> str:
    """What a list may be in place of an object, and what to do."""
    if isinstance(content, list) and content and isinstance(content[0], dict) and "image_id" in content[0]:
        return (
            ', but a list of annotations, as results are: put it under "annotations" beside the "images" and '
            '"categories" of the file that they are results on'
        )
    return ""


_BEGINNINGS = (
    (b"\x1f\x8b", "it is packed by gzip: unpack it first"),
    (b"PK\x03\x04", "it is a zip archive: unpack it first"),
    (b"<", "it is XML: convert it to COCO's JSON first"),
    (b"PAR1", "it is Parquet: convert it to COCO's JSON first"),
)


def _why_no_json(data: bytes, exc: ValueError) -> str:
    """What a file is instead, where its bytes tell, and what to do."""
    text = data[:64].lstrip()
    for beginning, told in _BEGINNINGS:
        if text.startswith(beginning):
            return told
    if not text:
        return "it is empty"
    if isinstance(exc, json.JSONDecodeError) and exc.msg == "Extra data" and text.startswith((b"{", b"[")):
        return "it holds more than one JSON text, as JSON lines do: put all into one file"
    if isinstance(exc, json.JSONDecodeError):
        num_chars = len(exc.doc.rstrip())
        if exc.pos >= num_chars or exc.msg.startswith("Unterminated"):
            return f"it ends in the middle, after {num_chars:,} characters: was it copied whole?"
    return f"it is no JSON: {exc}"


def _dump(record: Any) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()
