"""What runs on this machine, by the state file that `maskmill up` keeps, and how a run finds it.

It doesn't start anything: services.py does.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from maskmill.flows.services.prefect.secret import read_secret
from maskmill.storage.drivers.lease import process_lives


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """The state file: services that run now. `children` are their processes by name; `ready`: all answer."""

    pid: int
    api_url: str
    ray_address: str | None
    pool: str
    started_s: float
    children: Mapping[str, int]
    ready: bool = False


def home() -> Path:
    """Where services keep what they need: $MASKMILL_HOME, or ~/.maskmill."""
    place = os.environ.get("MASKMILL_HOME")
    return Path(place) if place else Path.home() / ".maskmill"


def running(folder: Path | None = None) -> Running | None:
    """The services that run on this machine, by their state file; None if there are none."""
    found = read_state(folder or home())
    return found if found is not None and process_lives(found.pid) else None


def ray_address(wanted: str | None) -> str | None:
    """The Ray cluster a run joins: the one named, else $MASKMILL_RAY_ADDRESS, else that of the services."""
    if wanted is not None:
        return wanted
    if os.environ.get("MASKMILL_RAY_ADDRESS"):
        return os.environ["MASKMILL_RAY_ADDRESS"]
    services = running()
    return services.ray_address if services is not None and services.ready else None


def use_server() -> None:
    """Clients of this process talk to the services' Prefect server, unless the environment names another.

    The secret comes along, also where the environment names this very server without one.
    """
    services = running()
    if services is None or not services.ready:
        return
    named = os.environ.get("PREFECT_API_URL")
    if named and (not _is_same(named, services.api_url) or os.environ.get("PREFECT_API_AUTH_STRING")):
        return
    os.environ["PREFECT_API_URL"] = named or services.api_url
    secret = read_secret(home())
    if secret is not None:
        os.environ["PREFECT_API_AUTH_STRING"] = secret


def serves(pool: str) -> bool:
    """Whether a worker of the services runs what is registered with this pool at the server in use."""
    services = running()
    named = os.environ.get("PREFECT_API_URL")
    return services is not None and services.pool == pool and (not named or _is_same(named, services.api_url))


def _is_same(named: str, url: str) -> bool:
    """Whether both are the same server of this machine."""
    return named.rstrip("/").replace("//localhost:", "//127.0.0.1:") == url


def state_path(folder: Path) -> Path:
    """Where the state file of services with this home lies."""
    return folder / "up.json"


def read_state(folder: Path) -> Running | None:
    """What the state file says, whether it still runs or not; None without a readable one."""
    try:
        return Running(**json.loads(state_path(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None
