"""Standard output as it is found: read by somebody who leaves, or in letters that lack some.

`maskmill query ... | head` reads what it wants and closes the pipe: the command then ends without a word,
with the code that a shell gives those that the pipe's signal ends. The signal itself stays ignored, as Python
has it: it would end a run over a store's connection too. A letter that a terminal's encoding lacks is written
as Python writes it, `\\u2713`, in place of an error.

It doesn't know: what is written (console.py).
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator

READER_GONE = 141
"""128 + SIGPIPE."""


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Runs a program: every letter can be written, and a reader that left is no error at its end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            give_up()
        except (AttributeError, ValueError):
            pass  # there is none, or it is closed


def reader_is_gone() -> bool:
    """Whether standard output goes to somebody who doesn't read any more."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def give_up() -> None:
    """What is still to be written to standard output goes nowhere, so that its last flush says nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
