"""What a worker has to say to people: warnings of the pipeline, carried to the driver by the shard's report.

A worker's log lies on its node, where nobody looks: a batch that was halved or a vocabulary that is read in
parts must reach whoever started the run.
"""

from __future__ import annotations

import logging
import threading

LOGGER = "maskmill.pipeline"
MAX_NOTES = 100


class Notes(logging.Handler):
    """Keeps warnings until they are taken, each text once, at most `MAX_NOTES` of them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._guard = threading.Lock()
        self._texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        text = record.getMessage()
        with self._guard:
            if len(self._texts) < MAX_NOTES:
                self._texts[text] = None

    def take(self) -> tuple[str, ...]:
        """What was noted since the last call."""
        with self._guard:
            texts = tuple(self._texts)
            self._texts.clear()
        return texts


def listen() -> Notes:
    """The process's collector, put into the pipeline's logger once."""
    logger = logging.getLogger(LOGGER)
    for handler in logger.handlers:
        if isinstance(handler, Notes):
            return handler
    notes = Notes()
    logger.addHandler(notes)
    return notes
