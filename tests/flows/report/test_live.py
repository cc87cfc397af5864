"""The live line: what is shown where, at 80 columns."""

from __future__ import annotations

import io
import re

from rich.console import Console

from maskmill.flows.report.live import LiveDisplay

GONE = "\x1b[2K"


def test_a_result_finds_the_line_gone_and_the_line_comes_again() -> None:
    """As doctor's findings: each on a line of its own."""
    shown, found = io.StringIO(), list[str]()
    terminal = Console(file=shown, force_terminal=True, width=80)
    with LiveDisplay(terminal, found.append) as live:
        live.step("looking")
        live.above(lambda: found.append(shown.getvalue()))
        (before,) = found
        live.step("asking")
    assert "looking" in before and before.endswith(GONE)
    assert "asking" in shown.getvalue().removeprefix(before)


def last_shown(count: tuple[int, ...]) -> str:
    """What is on the line when it goes."""
    shown = io.StringIO()
    with LiveDisplay(Console(file=shown, force_terminal=True, width=80), print) as live:
        live.step("looking", "image")
        live.count(*count)
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown.getvalue())


def test_a_step_that_counts_nothing_shows_no_count() -> None:
    """It was 0/?, of which nobody knows what it says."""
    assert "/" not in last_shown((0,)) and "?" not in last_shown((0,))
    assert "1,234 images" in last_shown((1234,))
    assert "1/3 images" in last_shown((1, 3))
