"""A Postgres of one test, on the loopback address: Debian's `postgresql` brings what it needs."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_port


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl, newest version first; None where Postgres is not installed."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A running server with an empty database; gives its URL, password included.

    Postgres refuses to run as root; then it runs as `postgres`, in a folder that this user can reach.

    Raises:
        RuntimeError: Postgres is not installed.
    """
    programs = find_programs()
    if programs is None:
        raise RuntimeError("no initdb is installed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        yield from _serve(programs, Path(folder))


def _serve(programs: Path, folder: Path) -> Iterator[str]:
    user = "postgres" if os.geteuid() == 0 else None
    password = secrets.token_hex(16)
    secret = folder / "password"
    secret.write_text(password)
    if user is not None:
        for path in (folder, secret):
            shutil.chown(path, user)
    port = free_port()

    def run(program: str, *words: str) -> None:
        command = [str(programs / program), *words]
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "maskmill", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -p {port} -F"
    run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql+asyncpg://maskmill:{password}@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
