"""Messages, exit codes, JSON and plain progress."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence

import pytest
import typer
from rich.console import Console

from maskmill.flows.config import ConfigError
from maskmill.flows.report import console
from maskmill.flows.report.live import LiveDisplay
from maskmill.flows.report.progress_lines import ProgressLines
from maskmill.flows.report.report import Tally, pace
from maskmill.storage.errors import InputError, OutOfSpace


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a field"), 2),
        (InputError("a folder"), 2),
        (OutOfSpace("the disk"), 3),
        (OSError("a file"), 3),
    ],
)
def test_our_errors_become_a_message_and_a_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, console.clear_errors():
        raise error
    assert caught.value.exit_code == code
    shown = capsys.readouterr()
    assert str(error) in shown.err
    assert shown.out == ""


def test_a_bug_keeps_its_traceback_and_debug_keeps_all() -> None:
    with pytest.raises(KeyError), console.clear_errors():
        raise KeyError("ours")
    with pytest.raises(ConfigError), console.clear_errors(debug=True):
        raise ConfigError("shown")


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(typer.Exit) as caught,
        console.clear_errors(resume="maskmill generate data --input in"),
    ):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert "maskmill generate data --input in" in capsys.readouterr().err


@pytest.mark.parametrize("show", [console.print_pairs, lambda rows: console.print_table(("a", "b"), rows)])
def test_a_terminal_cuts_no_word(
    show: Callable[[Sequence[tuple[str, str]]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checksum wider than its column goes on in the next line."""
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=40, highlight=False)
    monkeypatch.setattr(console, "_out", lambda: terminal)
    show([("segmenter", "sha256:" + "0123456789" * 6)])
    text = "".join(part.strip() for line in shown.getvalue().splitlines() for part in line.split("  "))
    assert "sha256:" + "0123456789" * 6 in text and "\u2026" not in text


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (("dumb", ProgressLines), ("xterm", LiveDisplay)):
        monkeypatch.setenv("TERM", name)
        terminal = Console(file=io.StringIO(), force_terminal=True)
        monkeypatch.setattr(console, "_err", lambda terminal=terminal: terminal)
        assert isinstance(console.live_watcher(), kind)


def test_brackets_in_names_are_text_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), console.clear_errors():
        raise InputError("photos[old]/[red]: no images")
    assert "photos[old]/[red]" in capsys.readouterr().err


def test_json_has_no_infinities(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"high": math.inf, "rows": ({"mean": 1.5, "low": math.nan},)})
    assert json.loads(capsys.readouterr().out) == {"high": None, "rows": [{"mean": 1.5, "low": None}]}


def test_a_tally_knows_its_pace_only_once_something_is_done() -> None:
    begun = Tally(images_total=10, shards_total=1)
    assert (begun.images_per_s, begun.masks_per_s, begun.left_s) == (0.0, 0.0, None)
    half = Tally(
        images_total=10, shards_total=1, images_done=5, masks_done=50, workers_ready=1, elapsed_s=2.5
    )
    assert (half.images_per_s, half.masks_per_s, half.left_s) == (2.0, 20.0, 2.5)
    assert pace(half) == "2.0 images/s, 20 masks/s, 0 rejected, 2.5 s left"
    at_once = Tally(images_total=2, shards_total=2, images_done=2, workers_ready=1, elapsed_s=4e-6)
    assert pace(at_once) == "0 rejected", "half a million images a second is no news"
