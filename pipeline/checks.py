"""Range checks of settings, and what JSON can say: said once for every layer above storage.

A check raises ValueError that names the field, its value and what it may be. It knows numbers, words and
types, not what they are for; sentences that tie two fields together stand with the settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def check_type(name: str, value: object, kind: type) -> None:
    """An instance of a type.

    Args:
        name: of the field.
        value: what it says.
        kind: what it must be.

    Raises:
        ValueError: another type.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name}={value!r} must be a {kind.__name__}")


def check_int(name: str, value: object, low: int, high: int) -> None:
    """A whole number; True and False are none.

    Args:
        name: of the field.
        value: what it says.
        low, high: both may be reached.

    Raises:
        ValueError: no whole number, or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value!r} must be a whole number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{name}={value} is out of range: use {low} to {high}")


def check_range(name: str, value: object, low: float, high: float) -> None:
    """A number; NaN, True and False are none.

    Args:
        name: of the field.
        value: what it says.
        low, high: both may be reached.

    Raises:
        ValueError: no number, or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}={value!r} must be a number from {low:g} to {high:g}")
    if not low <= value <= high:  # NaN fails too
        raise ValueError(f"{name}={value} is out of range: use {low:g} to {high:g}")


def check_within(name: str, value: object, low: float, high: float) -> None:
    """A number between two that may not be reached themselves; NaN is none, infinity is an end like others.

    Args:
        name: of the field.
        value: what it says.
        low, high: neither may be reached.

    Raises:
        ValueError: no number, or out of the range.
    """
    wanted = f"above {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}, without these"
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ValueError(f"{name}={value!r} is out of range: use a number {wanted}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """One of some words.

    Args:
        name: of the field.
        value: what it says.
        choices: what it may say.

    Raises:
        ValueError: another word.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: use one of {', '.join(choices)}")


def check_fields(settings: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Many fields at once: whole numbers where both ends are, else numbers.

    Args:
        settings: whose fields they are.
        ranges: field -> lowest and highest, both may be reached.

    Raises:
        ValueError: the first that is wrong.
    """
    for name, (low, high) in ranges.items():
        if isinstance(low, int) and isinstance(high, int):
            check_int(name, getattr(settings, name), low, high)
        else:
            check_range(name, getattr(settings, name), low, high)


def finite(value: Any) -> Any:
    """A value as JSON can say it: NaN and the infinities, at any depth, become None; keys become text.

    Args:
        value: mappings, lists, tuples and scalars.
    """
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
