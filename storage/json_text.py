"""JSON from bytes that somebody else may have damaged, and typed values out of it.

A record of ours is a frozen dataclass, written by `asdict`. Reading it back checks every field against its
annotation, so that nothing further on meets a list where it expects a number.

Records that nothing else has a checksum of are sealed: their last line holds the sha256 of the rest, and a
changed byte is found on reading. Those written before there were seals are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")

_SEAL, _END = b',\n "seal": "', b"\n}\n"
_SEAL_BYTES = len(_SEAL) + 64 + 1 + len(_END)
_LIKE_A_SEAL = re.compile(rb',\n "[^"]*": "[^"]{64}"\n\}\s*\Z')


def load_json(data: bytes | str) -> Any:
    """What the JSON says.

    Raises:
        ValueError: it is no JSON, nested too deep, has NaN or Infinity, which JSON has not, or its seal is
            broken: it is not what was written.
    """
    try:
        whole = _opened(data.encode() if isinstance(data, str) else data)
        return json.loads(whole, parse_constant=_no_number)
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc


def sealed(fields: Mapping[str, Any], *, compact: bool = False) -> bytes:
    """A record as it is stored: JSON, keys sorted, the seal on the last line.

    Args:
        fields: what it says.
        compact: all of it on one line, for records of many numbers.
    """
    assert len(fields), "an empty record says nothing"
    if compact:
        body = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return _with_seal(body[:-1].encode() + _END)
    return _with_seal((json.dumps(fields, sort_keys=True, indent=1, allow_nan=False) + "\n").encode())


def _with_seal(body: bytes) -> bytes:
    digest = hashlib.sha256(body).hexdigest().encode()
    return body.removesuffix(_END) + _SEAL + digest + b'"' + _END


def _opened(data: bytes) -> bytes:
    """The record without its seal. Raises ValueError where they don't fit together."""
    body, mark, _ = data.rpartition(_SEAL)
    if not mark or len(data) - len(body) != _SEAL_BYTES:
        if _LIKE_A_SEAL.search(data[-2 * _SEAL_BYTES :]):  # its name was changed, or it was copied elsewhere
            raise ValueError("its seal is broken: it is not what was written")
        return data
    if _with_seal(body + _END) != data:
        raise ValueError("its seal is broken: it is not what was written")
    return body + _END


def load_object(data: bytes | str) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    found = load_json(data)
    if not isinstance(found, dict):
        raise ValueError(f"{type(found).__name__}, not an object")
    return found


def from_json(kind: type[Kind], found: Mapping[str, Any], **given: object) -> Kind:
    """A dataclass from what `load_object` gave.

    Args:
        kind: of ints, floats, strings, bools, None, unions of these, tuple[X, ...], Mapping[str, X], Any, and
            dataclasses of such fields.
        found: by field; a field with a default may lack.
        given: fields that are not in the JSON; not checked.

    Raises:
        ValueError: a field that is unknown, lacks or has another type; what the dataclass itself refuses.
    """
    try:
        return _object(kind, {**found}, "", given)
    except AssertionError as exc:
        raise ValueError(str(exc)) from exc


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


@cache
def _kinds(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _required(kind: type[Any]) -> frozenset[str]:
    return frozenset(
        one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING
    )


def _object(kind: type[Kind], found: object, where: str, given: Mapping[str, object]) -> Kind:
    if not isinstance(found, dict):
        raise ValueError(f"{where or kind.__name__} is {type(found).__name__}, not an object")
    plain: Any = kind
    kinds = _kinds(plain)
    unknown, lacking = found.keys() - kinds.keys(), _required(plain) - found.keys() - given.keys()
    if unknown or lacking:
        raise ValueError(f"{where or kind.__name__}: unknown {sorted(unknown)}, lacking {sorted(lacking)}")
    values = {name: _value(kinds[name], value, f"{where}{name}") for name, value in found.items()}
    return kind(**{**values, **given})


@cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(kind), get_args(kind)


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind is Any or (type(value) is kind and kind in (int, str, bool, float, NoneType)):
        return value
    origin, arguments = _parts(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (kind,) = (one for one in arguments if one is not NoneType)
        return _value(kind, value, where)
    if kind is float and type(value) is int and abs(value) < 2**1000:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], one, f"{where}[{place}]") for place, one in enumerate(value))
    if origin is not None and isinstance(value, dict) and issubclass(origin, Mapping):
        return {name: _value(arguments[1], one, f"{where}.{name}") for name, one in value.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value, f"{where}.", {})
    raise ValueError(f"{where} is {str(value)[:60]!r}, not {getattr(kind, '__name__', kind)}")


def why_unreadable(exc: Exception) -> str:
    """What is wrong with a text of people's that can't be read as TOML or JSON, where Python's own words help
    nobody."""
    if isinstance(exc, UnicodeDecodeError):
        return f"the byte at place {exc.start:,} is no UTF-8: save it as UTF-8"
    if "set_int_max_str_digits" in str(exc):
        return "it has a number of thousands of digits: shorten it"
    return str(exc)
