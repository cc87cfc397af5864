"""The terminal: one voice for messages, errors and live progress.

Results go to standard output; everything else (progress, notes, errors) to standard error, so that `--json`
gives JSON alone. Where standard error is no terminal, progress is a plain line every ten seconds.

Exit codes: 0 done; 1 the dataset is not sound (missing, duplicated or damaged images, shards given up); 2
the command, a setting or an input is wrong; 3 something around it failed (storage, Ray, Prefect, memory);
130 stopped by Ctrl-C or SIGTERM; 141 nobody reads standard output any more (streams.py).
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from maskmill.flows.report import streams, tables
from maskmill.flows.report.progress_lines import ProgressLines
from maskmill.flows.report.report import Watcher, watching
from maskmill.pipeline.checks import finite
from maskmill.storage.secret_words import blank_secrets

if TYPE_CHECKING:
    from rich.console import Console

    from maskmill.flows.report.live import LiveDisplay

    out: Console
    err: Console

NOT_SOUND = 1
WRONG_USE = 2
FAILED = 3
INTERRUPTED = 130


@cache
def _out() -> Console:
    from rich.console import Console

    class Output(Console):
        """Rich's own would end the program here, with the code of a dataset that isn't sound."""

        def on_broken_pipe(self) -> None:
            """Raises the BrokenPipeError that it is called in."""
            raise  # noqa: PLE0704

    return Output(highlight=False, soft_wrap=True)


@cache
def _err() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def __getattr__(name: str) -> Console:
    """`out` and `err`, made when first used: rich takes longer to import than most commands to run."""
    if name not in ("out", "err"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _out() if name == "out" else _err()


def print_json(value: Any) -> None:
    """One JSON document on standard output; what JSON cannot say (infinity, NaN) is null."""
    sys.stdout.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """One JSON document on a line of standard output, at once."""
    sys.stdout.write(json.dumps(finite(value), allow_nan=False) + "\n")
    sys.stdout.flush()


def print_pairs(pairs: Iterable[tuple[str, Any]], *, title: str | None = None) -> None:
    """Names and values in two columns on standard output."""
    rows = [(str(name), str(value)) for name, value in pairs]
    if title:
        _out().print(f"[bold]{plain(title)}[/bold]")
    if not _out().is_terminal:
        _print_lines(tables.side_by_side(("", ""), rows))
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 3))
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(plain(name), plain(value))
    _out().print(table)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output: on a terminal long words are wrapped, elsewhere a row is a line."""
    rows = [tuple(row) for row in rows]
    if not _out().is_terminal:
        _print_lines(tables.side_by_side(header, rows))
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name, numeric in zip(header, tables.numeric(header, rows), strict=True):
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
    _out().print(table)


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of any width: side by side where that fits, else a block of lines a row; nothing is cut."""
    fits = tables.width_of(header, rows) <= _out().width
    _print_lines(tables.side_by_side(header, rows) if fits else tables.records(header, rows))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        _out().print(plain(line), soft_wrap=True)


def plain(text: str) -> str:
    """`text` with nothing in it taken as markup, nor by the terminal as an order, and without secrets.

    Names of files may hold escape sequences: a character that no terminal shows is written as Python does.
    """
    from rich.markup import escape

    shown = "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
    return escape(blank_secrets(shown))


def next_steps(commands: Iterable[tuple[str, str]]) -> None:
    """What to do next: commands to copy, each with what it does; they work in the same shell."""
    _out().print("\n[bold]Next[/bold]")
    for command, purpose in commands:
        typed = (
            f"{program()} {command.removeprefix('maskmill ')}" if command.startswith("maskmill ") else command
        )
        _out().print(f"  {plain(typed)}\n      [dim]{plain(purpose)}[/dim]")


def program() -> str:
    """How this program is called again in the same shell: by its name, or by its path where the name means
    none, or another."""
    typed = Path(sys.argv[0])
    found = shutil.which("maskmill")
    if typed.name != "maskmill" or (found is not None and Path(found).resolve() == typed.resolve()):
        return "maskmill"
    return shlex.quote(str(typed))


def agreed(question: str, *, yes: bool, json: bool, again: str) -> bool:
    """Whether to go on: `--yes`, or an answer on a terminal; else says how to.

    Args:
        question: to ask.
        yes: it was said beforehand.
        json: standard output is for JSON, and nobody is asked.
        again: the command that goes on without asking.
    """
    if yes:
        return True
    if sys.stdin.isatty() and _err().is_terminal and not json:
        return typer.confirm(question, err=True)
    note(f"nothing was changed; to do it: {again}")
    return False


def note(text: str) -> None:
    """Something to know that is no result."""
    _err().print(f"[yellow]note[/yellow] {plain(text)}")


@contextmanager
def clear_errors(*, debug: bool = False, resume: str | None = None) -> Iterator[None]:
    """Turns our own errors into one message and an exit code; others, being bugs, keep their traceback.

    Args:
        debug: let every error through with its traceback.
        resume: the command that goes on after an interruption, if there is one.

    Raises:
        typer.Exit: with the exit code, once the error has been told or the interruption answered.
    """
    try:
        yield
    except stop_signals():
        _err().print("\n[yellow]stopped[/yellow]; what was committed is kept.")
        if resume:
            _err().print(f"Resume with the same command:\n  {plain(resume)}")
        raise typer.Exit(INTERRUPTED) from None
    except expected_errors() as exc:
        if isinstance(exc, BrokenPipeError) and streams.reader_is_gone():
            streams.give_up()
            raise typer.Exit(streams.READER_GONE) from None
        if debug:
            raise
        _err().print(f"[red]error[/red] {plain(str(exc))}\n[dim](--debug shows where it came from)[/dim]")
        raise typer.Exit(exit_code(exc)) from None


def exit_unless(sound: bool, code: int = NOT_SOUND) -> None:
    """Ends the command where what it looked at is not sound; its report has said why.

    Raises:
        typer.Exit: with the exit code, unless it is sound.
    """
    if not sound:
        raise typer.Exit(code)


def stop_signals() -> tuple[type[BaseException], ...]:
    """What Ctrl-C raises, and what SIGTERM does within a flow."""
    return (KeyboardInterrupt, *_loaded((("prefect.exceptions", "TerminationSignal"),)))


def expected_errors() -> tuple[type[BaseException], ...]:
    """The errors that name their cause and cure. Only classes whose modules are loaded can have been
    raised."""
    places = (
        ("maskmill.flows.config", "ConfigError"),
        ("maskmill.flows.services.prefect.deploy", "DeployError"),
        ("maskmill.flows.services.ray.address", "ClusterError"),
        ("maskmill.flows.services.prefect.server", "PrefectServerError"),
        ("maskmill.storage.errors", "StorageError"),
        ("maskmill.flows.runs.relabel", "NotSignedOff"),
        ("maskmill.flows.services.services", "ServicesError"),
        ("maskmill.pipeline.weights.errors", "WeightsError"),
        ("maskmill.workers.run.events", "RunStopped"),
    )
    return (OSError, *_loaded(places))


def _loaded(places: Iterable[tuple[str, str]]) -> tuple[type[BaseException], ...]:
    """The classes whose modules are loaded; of others nothing can have been raised."""
    found = [getattr(sys.modules.get(module), name, None) for module, name in places]
    return tuple(kind for kind in found if kind is not None)


def exit_code(exc: BaseException) -> int:
    """2 for what the user got wrong (these errors are ValueErrors too), 3 for what failed around us."""
    return WRONG_USE if isinstance(exc, ValueError) else FAILED


def live_watcher(*, quiet: bool = False) -> LiveDisplay | ProgressLines:
    """A watcher for this terminal; `quiet`, or no terminal that moves its cursor, gives plain lines."""
    if quiet or not _err().is_terminal or _err().is_dumb_terminal:
        return ProgressLines(lambda line: _err().print(plain(line)), note)
    from maskmill.flows.report.live import LiveDisplay

    return LiveDisplay(_err(), note)


@contextmanager
def watched() -> Iterator[Watcher]:
    """Runs inside the block show themselves on this terminal."""
    with live_watcher() as watcher, watching(watcher):
        yield watcher


def command_line() -> str:
    """The command as it was typed, for copying."""
    return f"{program()} {shlex.join(sys.argv[1:])}"
