"""The drill's driver processes: started, killed, followed by what they tell, and asked how they ended."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maskmill.workers.drill.job import INCOMPLETE, STOPPED, DriverJob

_KILLED = -9
_RAYS_OWN_END = "Failed to connect to GCS within"
"""How Ray ends a process that joined a cluster, a minute after that cluster's control service was lost."""


@dataclass(eq=False)
class _Driver:
    process: subprocess.Popen[bytes]
    errors: Path


@dataclass(eq=False)
class Drivers:
    """The drivers of one dataset.

    Attributes:
        command: starts a driver; the job is appended.
        folder: for what they write.
        ends: how those ended that did, by reason; "complete" is the good one.
        crashes: what those wrote that ended by a bug.
        num_started: so far.
        lost_service: the cluster's control service was killed under them: Ray may end them.
    """

    command: Sequence[str]
    folder: Path
    ends: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    num_started: int = 0
    lost_service: bool = False
    _live: list[_Driver] = field(default_factory=list)
    _read: dict[Path, int] = field(default_factory=dict)

    @property
    def events_folder(self) -> Path:
        """Where they tell events."""
        return self.folder / "events"

    def start(self, job: DriverJob, environment: Mapping[str, str]) -> None:
        """One more."""
        self.events_folder.mkdir(parents=True, exist_ok=True)
        errors = self.folder / f"driver-{self.num_started:04d}.log"
        with errors.open("wb") as log:
            process = subprocess.Popen(
                [*self.command, json.dumps(asdict(job))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        self._live.append(_Driver(process, errors))
        self.num_started += 1

    def num_live(self) -> int:
        """Those that run now."""
        return sum(driver.process.poll() is None for driver in self._live)

    def pids(self) -> list[int]:
        """The processes of those that run now."""
        return [driver.process.pid for driver in self._live if driver.process.poll() is None]

    def kill_one(self, rng: random.Random) -> bool:
        """SIGKILL. False if none runs."""
        live = [driver for driver in self._live if driver.process.poll() is None]
        if live:
            rng.choice(live).process.kill()
        return bool(live)

    def kill_all(self) -> None:
        """Leaves none behind."""
        for driver in self._live:
            driver.process.kill()
            driver.process.wait()
        self._live.clear()

    def take_ends(self) -> list[str]:
        """How those ended that have since the last call."""
        ended = [driver for driver in self._live if driver.process.poll() is not None]
        reasons = []
        for driver in ended:
            self._live.remove(driver)
            reasons.append(self._reason(driver))
        self.ends.update(reasons)
        return reasons

    def take_events(self) -> list[dict[str, Any]]:
        """What they told since the last call."""
        events = []
        for path in sorted(self.events_folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                for line in file:
                    if line.endswith(b"\n"):
                        self._read[path] = self._read.get(path, 0) + len(line)
                        events.append(json.loads(line))
        return events

    def _reason(self, driver: _Driver) -> str:
        code = driver.process.returncode
        if code == 0:
            return "complete"
        if code == _KILLED:
            return "killed"
        if code == INCOMPLETE:
            return "incomplete"
        text = driver.errors.read_text(errors="replace").strip()
        last = text.splitlines()[-1] if text else "nothing written"
        if code == STOPPED:
            return f"stopped: {last.partition(':')[0]}"
        if self.lost_service and _RAYS_OWN_END in last:
            return "ended by Ray"
        self.crashes.append(f"a driver ended with {code}: {text[-1500:]}")
        return f"crashed: {last[:80]}"
