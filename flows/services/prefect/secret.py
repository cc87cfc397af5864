"""The secret of Prefect's API on this machine: who has it may start runs, and so run code as this user.

`maskmill up` makes it once and keeps it below its home, in a file that only the user may read; commands, the
worker and its runs take it from there. A user's own (PREFECT_SERVER_API_AUTH_STRING) is kept there too. A
file that others could read is replaced: what it says is no secret any more.

`guarded` is what a Prefect server of ours is started with: without the secret it answers nothing but whether
it lives; a page of another origin is not answered, and a change needs a token that only its own pages get.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

USER = "maskmill"
FILE = "api-secret"


def secret_path(home: Path) -> Path:
    """Where the secret of services with this home lies."""
    return home / FILE


def new_secret() -> str:
    """A fresh secret, in Prefect's form: user:password."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def read_secret(home: Path) -> str | None:
    """The secret in force; None if there is none, or others may read it."""
    try:
        with secret_path(home).open(encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
                return None
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def keep_secret(home: Path) -> str:
    """The secret to start a server with, kept in its file: the user's own, the one there, or a new one.

    Raises:
        OSError: the file cannot be written.
    """
    wanted = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    before = read_secret(home)
    secret = wanted or before or new_secret()
    if secret != before:
        home.mkdir(parents=True, exist_ok=True)
        unfinished = secret_path(home).with_suffix(f".{os.getpid()}")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret + "\n")
        unfinished.replace(secret_path(home))
    return secret


def guarded(secret: str, origins: str) -> dict[str, str]:
    """The environment of a Prefect server that answers its own pages and who has the secret, nobody else.

    Args:
        secret: user:password.
        origins: of its own pages, such as http://127.0.0.1:4200, commas between them.
    """
    return {
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }
