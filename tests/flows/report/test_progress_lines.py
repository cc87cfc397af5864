"""Progress without a terminal moves by itself."""

from __future__ import annotations

import time

from maskmill.flows.report.progress_lines import ProgressLines
from maskmill.flows.report.report import Tally


def _wait_for(lines: list[str], number: int) -> None:
    until_s = time.monotonic() + 20
    while len(lines) < number and time.monotonic() < until_s:
        time.sleep(0.01)


def test_a_step_that_counts_nothing_still_shows_that_it_is_alive() -> None:
    lines: list[str] = []
    with ProgressLines(lines.append, lines.append, every_s=0.02) as progress:
        progress.step("starting Ray")
        _wait_for(lines, 3)
    assert lines[0] == "starting Ray"
    assert all(line.startswith("  still at it (") for line in lines[1:])
    assert len(lines) >= 3


def test_lines_say_where_it_stands_and_the_last_count_is_never_lost() -> None:
    lines: list[str] = []
    with ProgressLines(lines.append, lines.append, every_s=60.0) as progress:
        progress.step("drawing", "scene")
        for done in range(1, 7):
            progress.count(done, 6)
        progress.step("listing")
        progress.count(1200)
        progress.step("checking", "shard")
        progress.count(1)
    assert [line.partition(" (")[0] for line in lines] == [
        "drawing",
        "  6 of 6 scenes",
        "listing",
        "  1,200",
        "checking",
        "  1 shard",
    ]


def test_a_tally_has_pace_and_time_left() -> None:
    lines: list[str] = []
    with ProgressLines(lines.append, lines.append, every_s=0.02) as progress:
        progress.step("annotating")
        progress.tally(
            Tally(images_total=50, shards_total=5, images_done=10, workers_ready=1, elapsed_s=10.0)
        )
        _wait_for(lines, 2)
    assert "10 of 50 images" in lines[1]
    assert "1.0 images/s" in lines[1]
    assert "40 s left" in lines[1]


def test_notes_come_at_once_and_nothing_comes_after_the_end() -> None:
    lines: list[str] = []
    with ProgressLines(lines.append, lines.append, every_s=0.02) as progress:
        progress.note("a worker was lost")
        assert lines == ["a worker was lost"]
    told = len(lines)
    time.sleep(0.1)
    assert len(lines) == told
