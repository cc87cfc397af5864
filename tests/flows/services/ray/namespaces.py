"""Two machines in one: network namespaces with a wire between, each with processes and a /tmp/ray of its own.

What runs in one sees the other by its address alone, as another machine would, and shares the file system, as
a mounted one. It needs root, iproute2 and util-linux; ends all that it started, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_OWN_PLACES = 'mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && exec "$@"'


@dataclass(frozen=True)
class Machine:
    """One end of the wire."""

    name: str
    address: str

    def command(self, *words: str | Path) -> list[str]:
        """What runs `words` there; ended when the caller's child is."""
        inside = ["ip", "netns", "exec", self.name, "unshare", "--pid", "--fork", "--kill-child", "--mount"]
        return [*inside, "--mount-proc", "sh", "-c", _OWN_PLACES, "sh", *map(str, words)]

    def run(
        self, words: Sequence[str | Path], *, environment: Mapping[str, str], cwd: Path, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command there to its end."""
        return subprocess.run(
            self.command(*words),
            env=dict(environment),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    @contextlib.contextmanager
    def running(
        self, words: Sequence[str | Path], *, environment: Mapping[str, str], cwd: Path, log: Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A command runs there until the block ends."""
        with log.open("wb") as file:
            process = subprocess.Popen(
                self.command(*words),
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()  # and by --kill-child all of its namespace
            process.wait()


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """A pair, gone with the block; skips the test where namespaces can't be made."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        pytest.skip("a second network namespace needs root, iproute2 and util-linux")
    mark = f"{os.getpid() % 10**6}"
    subnet = f"10.213.{os.getpid() % 256}"
    machines = Machine(f"mma{mark}", f"{subnet}.1"), Machine(f"mmb{mark}", f"{subnet}.2")
    try:
        for machine in machines:
            made = subprocess.run(["ip", "netns", "add", machine.name], capture_output=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespace can be made here: {made.stderr.decode().strip()}")
        ends = [word for place in machines for word in ("name", place.name, "netns", place.name, "peer")][:-1]
        _ip("link", "add", *ends[:4], "type", "veth", *ends[4:])
        for machine in machines:
            _ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", machine.name)
            for device in ("lo", machine.name):
                _ip("-n", machine.name, "link", "set", device, "up")
        yield machines
    finally:
        for machine in machines:
            subprocess.run(["ip", "netns", "del", machine.name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and waits."""
    process.send_signal(signal.SIGTERM)
    process.wait(30)
