"""Progress on a terminal, as one live line. A file of its own because rich's progress bars load slowly."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from maskmill.flows.report import console
from maskmill.flows.report.report import Tally


class LiveDisplay:
    """Progress as one live line on standard error: step, bar, images/s, masks/s, rejects, time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console.err,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, pace="")

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def step(self, title: str) -> None:
        self._progress.reset(self._task, total=None, description=console.plain(title), pace="")

    def count(self, done: int, total: int | None = None) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def tally(self, tally: Tally) -> None:
        self._progress.update(
            self._task,
            completed=tally.images_done,
            total=tally.images_total,
            pace=console.plain(console.pace(tally)),
        )

    def note(self, text: str) -> None:
        console.note(text)
