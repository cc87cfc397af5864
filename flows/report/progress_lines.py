"""Progress as plain lines on standard error: for logs, pipes and schedules.

How it works: a step's title is shown at once, then a line every ten seconds says where it stands, from a
thread of its own: a step that counts nothing still shows that it is alive. The last count closes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from maskmill.flows.report.report import Tally, pace
from maskmill.flows.report.words import count, duration

EVERY_S = 10.0


class ProgressLines:
    """A watcher that writes lines.

    Args:
        tell: writes a line.
        note: shows what the user should know.
        every_s: seconds between two lines of a step.
    """

    def __init__(
        self, tell: Callable[[str], None], note: Callable[[str], None], *, every_s: float = EVERY_S
    ) -> None:
        self._tell, self._note, self._every_s = tell, note, every_s
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._title, self._since_s, self._stand, self._told = "", time.monotonic(), "", ""
        self._counts = ""

    def __enter__(self) -> ProgressLines:
        self._ended.clear()
        self._thread = threading.Thread(target=self._go, name="progress lines", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._close()

    def step(self, title: str, counts: str = "") -> None:
        """See flows/report/report.py."""
        with self._lock:
            self._close()
            self._title, self._since_s, self._stand, self._told = title, time.monotonic(), "", ""
            self._counts = counts
            self._tell(title)

    def count(self, done: int, total: int | None = None) -> None:
        """See flows/report/report.py."""
        with self._lock:
            last, before = (done, "") if total is None else (total, f"{done:,} of ")
            self._stand = before + (count(last, self._counts) if self._counts else f"{last:,}")

    def tally(self, tally: Tally) -> None:
        """See flows/report/report.py."""
        with self._lock:
            self._stand = f"{tally.images_done:,} of {tally.images_total:,} images, {pace(tally)}"

    def note(self, text: str) -> None:
        """See flows/report/report.py."""
        self._note(text)

    def record(self, text: str) -> None:
        """A command's log is its terminal, and this is not for it."""

    def above(self, show: Callable[[], None]) -> None:
        """See flows/report/live.py: lines that are written stay where they are."""
        show()

    def _go(self) -> None:
        """A line each time, until the watcher is left."""
        while not self._ended.wait(self._every_s):
            with self._lock:
                if self._title or self._stand:
                    self._show()

    def _close(self) -> None:
        """The step's last count, where no line said it yet."""
        if self._stand and self._stand != self._told:
            self._show()

    def _show(self) -> None:
        since = duration(time.monotonic() - self._since_s)
        self._tell(f"  {self._stand or 'still at it'} ({since})")
        self._told = self._stand
