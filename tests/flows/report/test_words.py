"""Numbers as people say them."""

from __future__ import annotations

import pytest

from maskmill.flows.report import words


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12_345, "12,345 images")]
)
def test_a_count_has_its_plural(number: int, text: str) -> None:
    assert words.count(number, "image") == text


def test_a_plural_of_its_own() -> None:
    assert words.count(2, "box", "boxes") == "2 boxes"


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (70_123, "70.1 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (1_500_000, "1.5 MB"),
        (12_300_000_000_000, "12.3 TB"),
        (5e18, "5000 PB"),
    ],
)
def test_sizes_are_in_the_unit_that_fits(num_bytes: float, text: str) -> None:
    assert words.size(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (16.3, "16 s"),
        (59.4, "59 s"),
        (75, "1 min 15 s"),
        (3 * 3600 + 125, "3 h 2 min"),
        (50 * 3600, "2 days 2 h"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not set"),
        (True, "on"),
        ("nano", "nano"),
        (0.9500000001, "0.95"),
        ([1, 2], "1, 2"),
        ((), "none"),
        ({"a": None, "b": ["x"]}, "a not set, b x"),
    ],
)
def test_settings_are_said_without_pythons_signs(value: object, text: str) -> None:
    assert words.listed(value) == text


def test_a_moment_is_to_the_second() -> None:
    assert words.moment("2026-11-27T13:25:46.123456+00:00") == "2026-11-27 13:25:46 UTC"
    assert words.moment("2026-11-27T13:25:46Z") == "2026-11-27 13:25:46 UTC"
    assert words.moment("2026-11-27T13:25:46+02:00") == "2026-11-27T13:25:46+02:00", "no zone is dropped"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mean_iou", "mean IoU"),
        ("above_75", "above 0.75"),
        ("masks_first", "masks first"),
        ("images", "images"),
    ],
)
def test_a_figure_has_a_name_that_people_read(name: str, text: str) -> None:
    assert words.figure_name(name) == text


def test_choices_and_totals_read_as_sentences() -> None:
    assert words.choice(("a",)) == "a"
    assert words.choice(("a", "b", "c")) == "a, b or c"
    assert [name for name, _ in words.in_order({"annotated": 1, "x": 2, "images": 3})] == [
        "images",
        "annotated",
        "x",
    ]
    brought = words.in_order({"labels_masks": 4, "captions": 2, "masks": 1})
    assert [name for name, _ in brought] == ["masks", "masks that labels brought", "captions"]
