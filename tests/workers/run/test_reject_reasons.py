"""One list of reject reasons: what the code gives, what the docs show."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.reject_reasons import REASONS, Header, reason_names, reasons_table, refused

ROOT = Path(__file__).parents[3]
PLACE = {
    "DecodeError": 0,
    "BadAnnotation": 0,
    "UnfitPicture": 0,
    "Reject": 1,
    "InputProblem": 1,
    "PlanReject": 1,
}
"""The argument that is a reason, of every type that carries one."""


def test_every_reason_that_the_code_gives_is_in_the_list() -> None:
    given = {reason for layer in ("pipeline", "storage", "workers") for reason in given_reasons(ROOT / layer)}
    given |= checked()
    assert {"too_small", "tar_damaged", "crashed_the_worker", "out_of_memory", "duplicate"} <= given
    assert given - reason_names() == set()


def test_every_reason_of_the_list_is_given_somewhere() -> None:
    text = "".join(
        path.read_text()
        for layer in ("pipeline", "storage", "workers")
        for path in (ROOT / layer).rglob("*.py")
        if path.name != "reject_reasons.py"
    )
    found = checked() | {"no_<column>"}
    assert [one.name for one in REASONS if one.name not in found and f'"{one.name}"' not in text] == []


def test_each_reason_is_told_once_with_its_cure() -> None:
    assert len(reason_names()) == len(REASONS)
    assert [one.name for one in REASONS if not one.means or not one.cure or one.means.endswith(".")] == []


def test_the_docs_show_the_list() -> None:
    assert f"\n{reasons_table()}\n" in (ROOT / "docs" / "troubleshooting.md").read_text()


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (640, 480, None),
        (16, 16, None),
        (15, 480, "too_small"),
        (480, 15, "too_small"),
        (65_500, 16, None),
        (16, 65_501, "too_long"),
        (20_000, 20_000, "too_many_pixels"),
        (1, 200_000_000, "too_many_pixels"),
    ],
)
def test_a_header_is_refused_by_the_first_reason_that_speaks_against_it(
    width: int, height: int, reason: str | None
) -> None:
    found = refused(Header(width, height, "JPEG", "RGB"), IngestSettings(min_side_px=16))
    assert (found.reason if found else None) == reason
    assert found is None or found.detail.startswith(f"{width}x{height} px, ")


def checked() -> set[str]:
    """The reasons that stand in the list with their check."""
    return {one.name for one in REASONS if one.refuses is not None}


def given_reasons(folder: Path) -> Iterator[str]:
    """The reasons of every reject, problem and decoding error that is made in these files."""
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        words = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = PLACE.get(node.func.id, len(node.args))
                for value in node.args[place : place + 1]:
                    yield from strings_of(value, words)


def strings_of(value: ast.expr, words: dict[str, ast.expr]) -> Iterator[str]:
    """The strings that an argument may be: itself, either side of a choice, or a name's of its file."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from (one for side in (value.body, value.orelse) for one in strings_of(side, words))
    elif isinstance(value, ast.Name) and value.id in words:
        yield from strings_of(words[value.id], {})
    elif isinstance(value, ast.JoinedStr):
        yield "no_<column>"
