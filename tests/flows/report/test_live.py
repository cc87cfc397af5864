"""The live line: what is shown where, at 80 columns."""

from __future__ import annotations

import io

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


def test_a_step_that_counts_nothing_shows_no_count() -> None:
    shown = io.StringIO()
    with LiveDisplay(Console(file=shown, force_terminal=True, width=80), print) as live:
        live.step("looking")
        live.count(0)
    assert "0/" not in shown.getvalue() and "/?" not in shown.getvalue()

    shown = io.StringIO()
    with LiveDisplay(Console(file=shown, force_terminal=True, width=80), print) as live:
        live.step("exporting", "image")
        live.count(1234)
        live.step("verifying", "image")
        live.count(1, 3)
    assert "1,234" in shown.getvalue() and "1/3" in shown.getvalue()
