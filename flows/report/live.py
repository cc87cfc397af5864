"""Progress on a terminal, as one live line. A file of its own because rich's progress bars load slowly."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn
from rich.text import Text

from maskmill.flows.report.report import Tally, pace


class LiveDisplay:
    """Progress as one live line: step, bar, images/s, masks/s, rejects, time left.

    Args:
        console: where it is shown.
        note: shows what the user should know, above the line.
    """

    def __init__(self, console: Console, note: Callable[[str], None]) -> None:
        self._note = note
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Count(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, pace="")

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def step(self, title: str, counts: str = "") -> None:
        """As `Watcher`: the bar begins again under this title."""
        self._progress.reset(
            self._task, total=None, description=escape(title), pace=f"{counts}s" if counts else ""
        )

    def count(self, done: int, total: int | None = None) -> None:
        """As `Watcher`."""
        self._progress.update(self._task, completed=done, total=total)

    def tally(self, tally: Tally) -> None:
        """As `Watcher`, with the pace."""
        self._progress.update(
            self._task,
            completed=tally.images_done,
            total=tally.images_total,
            pace=escape(pace(tally)),
        )

    def note(self, text: str) -> None:
        """As `Watcher`: above the bar."""
        self._note(text)

    def record(self, text: str) -> None:
        """A command's log is its terminal, and this is not for it."""

    def above(self, show: Callable[[], None]) -> None:
        """Shows a result on standard output meanwhile: the line goes, and comes again below it."""
        self._progress.stop()
        try:
            show()
        finally:
            self._progress.start()


class _Count(MofNCompleteColumn):
    """Done of all; where nobody knows how many there are, what is done, if anything is."""

    def render(self, task: Task) -> Text:
        """As rich's."""
        if task.total is not None:
            return super().render(task)
        return Text(f"{task.completed:,.0f}" if task.completed else "", style="progress.download")
