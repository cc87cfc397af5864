"""A service as a child process: its log, its deaths, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from maskmill.storage.secret_words import blank_secrets

STOP_TIMEOUT_S = 20.0
MAX_DEATHS = 5
DEATHS_WITHIN_S = 120.0


class Child:
    """One service: its process, started again when it dies."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name, self._command, self._environment = name, command, environment
        self.log = folder / "logs" / f"{name}.log"
        self._deaths: list[float] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.not_before_s = 0.0

    def start(self) -> None:
        """Starts it in a process group of its own; what it writes goes to its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def died(self) -> int | None:
        """Its exit code, once for each death."""
        if self.process is None or self.process.poll() is None:
            return None
        code, now = self.process.returncode, time.monotonic()
        self.process = None
        self._deaths = [at for at in self._deaths if now - at < DEATHS_WITHIN_S] + [now]
        self.not_before_s = now + min(30.0, 2.0 ** (len(self._deaths) - 1))
        return code

    @property
    def hopeless(self) -> bool:
        """Whether it has died too often in too short a time."""
        return len(self._deaths) >= MAX_DEATHS

    def stop(self) -> None:
        """Asks it to end, and kills its group if it doesn't in `STOP_TIMEOUT_S`."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_words(self) -> str:
        """The end of its log, secrets blanked."""
        text = self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""
        return blank_secrets(text.strip()) or "(nothing)"
