"""Machines in one: network namespaces with wires between, each with processes and a /tmp/ray of its own.

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

WIRE = "wire"
"""What each machine calls its end."""

_OWN_PLACES = 'mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && exec "$@"'


@dataclass(frozen=True)
class Machine:
    """One of them."""

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
def unplugged(machine: Machine) -> Iterator[None]:
    """Its wire is out while the block runs."""
    _ip("-n", machine.name, "link", "set", WIRE, "down")
    try:
        yield
    finally:
        _ip("-n", machine.name, "link", "set", WIRE, "up")


@contextlib.contextmanager
def machines(count: int) -> Iterator[tuple[Machine, ...]]:
    """So many, at one switch, gone with the block; skips the test where namespaces can't be made."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        pytest.skip("a second network namespace needs root, iproute2 and util-linux")
    mark = f"{os.getpid() % 10**6}"
    subnet, switch = f"10.213.{os.getpid() % 256}", f"mms{mark}"
    found = tuple(Machine(f"mm{place}n{mark}", f"{subnet}.{place + 1}") for place in range(count))
    names = [switch, *(machine.name for machine in found)]
    try:
        for name in names:
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespace can be made here: {made.stderr.decode().strip()}")
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        for machine in found:
            ends = ["name", machine.name, "netns", switch, "type", "veth"]
            _ip("link", "add", *ends, "peer", "name", WIRE, "netns", machine.name)
            _ip("-n", switch, "link", "set", machine.name, "master", "switch", "up")
            _ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", WIRE)
            for device in ("lo", WIRE):
                _ip("-n", machine.name, "link", "set", device, "up")
        yield found
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and waits."""
    process.send_signal(signal.SIGTERM)
    process.wait(30)
