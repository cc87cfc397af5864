"""Numbers as people say them: counts with their noun, sizes, times, shares, choices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

TOTALS = ("images", "annotated", "rejected", "masks")
BROUGHT = re.compile(r"(\w+)_masks")
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def count(number: int, noun: str, many: str | None = None) -> str:
    """`count(1, "image")` -> "1 image", `count(1200, "image")` -> "1,200 images".

    Args:
        number: of them.
        noun: for one.
        many: for several; the noun with an s by default.
    """
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def size(num_bytes: float) -> str:
    """`70_123` -> "70 kB", `1_500_000` -> "1.5 MB": three digits at most, in powers of 1000."""
    place, value = 0, float(num_bytes)
    while abs(value) >= 999.5 and place + 1 < len(UNITS):
        place, value = place + 1, value / 1000
    if place == 0:
        return count(round(value), "byte")
    return f"{_three(value)} {UNITS[place]}"


def duration(seconds: float) -> str:
    """`75` -> "1 min 15 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def choice(names: Iterable[str]) -> str:
    """`("a", "b", "c")` -> "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def listed(value: object) -> str:
    """A setting's value as a person writes it: no quotes, no brackets, no None."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(listed(one) for one in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {listed(one)}" for name, one in value.items()) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def figure_name(name: str) -> str:
    """A figure's name as a person reads it: "mean_iou" -> "mean IoU", "above_75" -> "above 0.75"."""
    words = re.sub(r"\babove_(\d\d)\b", r"above 0.\1", name).replace("_", " ")
    return re.sub(r"\biou\b", "IoU", words)


def moment(iso: str) -> str:
    """ "2026-11-27T13:25:46.123456+00:00" -> "2026-11-27 13:25:46 UTC"; other texts as they are."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00:00)", iso)
    return f"{found[1]} {found[2]} UTC" if found else iso


def in_order(totals: Mapping[str, float]) -> list[tuple[str, float]]:
    """A generation's totals as people read them: images and what became of them, masks, those that columns
    brought (`labels_masks`), then the rest as it comes."""
    brought = [name for name in totals if BROUGHT.fullmatch(name)]
    first = {name: totals[name] for name in (*TOTALS, *brought) if name in totals}
    named = (first | dict(totals)).items()
    return [(BROUGHT.sub(r"masks that \1 brought", name), total) for name, total in named]


def _three(value: float) -> str:
    """Three digits where there are so many: 1.5, 70, 1.25, 999."""
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
