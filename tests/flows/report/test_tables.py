"""Tables: aligned, never cut, a line a row."""

from __future__ import annotations

from maskmill.flows.report import tables


def test_numbers_are_right_and_words_left() -> None:
    lines = tables.side_by_side(("name", "masks"), [("a", "7"), ("long name", "1,200")])
    assert lines == ["name       masks", "a              7", "long name  1,200"]


def test_no_line_is_cut_wrapped_or_ends_in_spaces() -> None:
    cell = "x" * 500
    lines = tables.side_by_side(("", ""), [("a", cell), ("b", "")])
    assert lines == [f"a  {cell}", "b"]


def test_a_row_is_a_line_whatever_is_in_its_cells() -> None:
    assert tables.side_by_side(("a", "b"), [("one\ntwo", "x")])[1:] == ["one\\ntwo  x"]


def test_wide_rows_are_records() -> None:
    assert tables.records(("key", "source"), [("1", "a.jpg")]) == ["row 1", "  key     1", "  source  a.jpg"]
    assert tables.width_of(("ab", "c"), [("1", "long")]) == 2 + 2 + 4 + 2


def test_a_table_without_rows_keeps_its_header() -> None:
    assert tables.side_by_side(("key", "source"), []) == ["key  source"]
