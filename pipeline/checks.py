"""Range checks of settings: each raises ValueError that names the field, its value and what it may be."""

from __future__ import annotations


def check_type(name: str, value: object, kind: type) -> None:
    """An instance of `kind`."""
    if not isinstance(value, kind):
        raise ValueError(f"{name}={value!r} must be a {kind.__name__}")


def check_int(name: str, value: object, low: int, high: int) -> None:
    """A whole number from `low` to `high`; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value!r} must be a whole number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{name}={value} is out of range: use {low} to {high}")


def check_range(name: str, value: object, low: float, high: float) -> None:
    """A number from `low` to `high`; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}={value!r} must be a number from {low:g} to {high:g}")
    if not low <= value <= high:  # NaN fails too
        raise ValueError(f"{name}={value} is out of range: use {low:g} to {high:g}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """One of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: use one of {', '.join(choices)}")
