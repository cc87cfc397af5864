"""Which doors a process and all that it started have open: listening sockets, by /proc.

A process belongs to the tree by its parent, or by an environment variable that the test gave its root: some
of Ray's processes are children of nobody.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "MASKMILL_TEST_DOORS"
MOST_BYTES = 2000
_LISTEN = "0A"


@dataclass(frozen=True)
class Door:
    """A listening socket. `host` is where from it is reached: 127.0.0.1, 0.0.0.0, ..."""

    host: str
    port: int
    program: str

    @property
    def is_loopback(self) -> bool:
        found = ipaddress.ip_address(self.host)
        mapped = getattr(found, "ipv4_mapped", None)
        return (mapped or found).is_loopback


def doors_of(mark: str) -> set[Door]:
    """The doors of every process whose environment has this mark."""
    inodes = {inode: name for pid, name in _marked(mark) for inode in _sockets(pid)}
    return {Door(host, port, inodes[inode]) for host, port, inode in _listening() if inode in inodes}


def answer_to_stranger(door: Door, path: str = "/") -> str:
    """What HTTP without any secret gets, status line first; "" for nothing."""
    said = b""
    try:
        with socket.create_connection(("127.0.0.1", door.port), timeout=1) as link:
            link.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost:{door.port}\r\n\r\n".encode())
            while len(said) < MOST_BYTES and (more := link.recv(MOST_BYTES)):
                said += more
    except OSError:
        pass  # no HTTP, or it waits for more
    return said.decode(errors="replace")


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                yield int(place.name), (place / "comm").read_text().strip()
        except OSError:
            continue  # it has ended, or is another user's


def _sockets(pid: int) -> Iterator[str]:
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                yield found[1]
    except OSError:
        return


def _listening() -> Iterator[tuple[str, int, str]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                digits, _, port = fields[1].partition(":")
                words = [bytes.fromhex(digits[i : i + 8])[::-1] for i in range(0, len(digits), 8)]
                yield str(ipaddress.ip_address(b"".join(words))), int(port, 16), fields[9]
