"""Why a worker is gone, in one line for people, and when to stop starting more.

Ray's own text has many lines, the cause the last of them or in the middle. What is told is the cause: the
error a worker ended with, the file it came from and the node it was on.

An error that a worker raises while it starts comes back with the next one as a rule: after `MAX_ROUNDS` that
failed alike, each begun after the one before had failed, and no worker ready in between, the run ends. Many
that start at one time and fail together, as on a node of a bad installation, are one round.

It doesn't know of deaths without a word (a signal, a lost node): pool.py counts those.
"""

from __future__ import annotations

import re
import time
from collections import Counter

from ray.exceptions import RayActorError, RayError

MAX_ROUNDS = 3

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r'^ +File "(?P<file>[^"]+)", line (?P<line>\d+)')
_NODE = re.compile(r"\bip=(?P<ip>[0-9a-fA-F.:]+)")
_EXIT = re.compile(r"Worker exit detail: (?P<detail>.+?)(?: There are some potential root causes|$)", re.M)
_ON_NODE = ", on the node "
_INSTALL = "the same maskmill and Python packages must be installed on every Ray node"


def raised_at_start(error: RayError) -> bool:
    """Whether the worker lived long enough to raise an error of its own, before it was ready."""
    return isinstance(error, RayActorError) and error.actor_init_failed


def last_words(error: RayError) -> str:
    """One line: an error raised at the start, with its place and node; how a process ended; or Ray's own."""
    text = _COLOURS.sub("", str(error)).strip()
    if raised_at_start(error):
        return _raised(text)
    ended = _EXIT.search(text)
    if ended is not None:
        return f"its process ended: {ended['detail']}"
    return next(iter(text.splitlines()), type(error).__name__)


class StartRounds:
    """Starts that failed the same way, one after another."""

    def __init__(self) -> None:
        self._rounds: Counter[str] = Counter()
        self._last_failed: dict[str, float] = {}

    def ready(self) -> None:
        """A worker has started: what was counted is forgotten."""
        self._rounds.clear()

    def failed(self, reason: str, began: float) -> bool:
        """Counts a start that failed; True once enough have.

        Args:
            reason: as `last_words` gives it.
            began: when it was started, on the monotonic clock.
        """
        what = reason.partition(_ON_NODE)[0]
        if began >= self._last_failed.get(what, began):  # else of a round that is counted
            self._rounds[what] += 1
            self._last_failed[what] = time.monotonic()
        return self._rounds[what] >= MAX_ROUNDS


def start_advice(reason: str) -> str:
    """What the user is told when no worker can start."""
    cure = f". Cure: {_INSTALL}" if "ImportError" in reason or "ModuleNotFoundError" in reason else ""
    return f"workers cannot start, {MAX_ROUNDS} times in a row the same: {reason}{cure}"


def _raised(text: str) -> str:
    """From a traceback as Ray prints it: the last error, where it was raised, and on which node."""
    lines = text.splitlines()
    places = [match for line in lines if (match := _PLACE.match(line))]
    last_of_trace = max((n for n, line in enumerate(lines) if line.startswith("  ")), default=0)
    error = " ".join(line.strip() for line in lines[last_of_trace + 1 :] if line.strip()) or lines[0]
    file = f" ({places[-1]['file']}, line {places[-1]['line']})" if places else ""
    node = _NODE.search(text)
    return f"{error}{file}" + (f"{_ON_NODE}{node['ip']}" if node is not None else "")
