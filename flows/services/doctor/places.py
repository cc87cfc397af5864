"""Of what surrounds a run: names that hide modules, proxies, the folder of temporary files, the home.

surroundings.py sets right what it can; here is told what it did, and what only a person can set right.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from maskmill.flows.services import surroundings
from maskmill.flows.services.doctor.findings import Finding, fine, look, wrong

SHOWN = 4


def hidden_modules(environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> Finding:
    """Files in PYTHONPATH, or in the current folder, named like a module that a run imports.

    Args:
        environment: whose PYTHONPATH counts.
        folder: the current one.
    """
    known = _module_names()
    named = [Path(part) for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    in_path = [found for place in named for found in _hiding(place, known)]
    if in_path:
        says = f"PYTHONPATH has {_shown(in_path)}: other modules than a run needs are imported"
        return wrong("module names", says, "unset PYTHONPATH, or rename them")
    here = list(_hiding(folder or Path.cwd(), known))
    if here:
        says = (
            f"the current folder has {_shown(here)}, which hide modules from `python -m`, not from maskmill"
        )
        return look("module names", says, "type `maskmill`, not `python -m maskmill`, or rename them")
    return fine("module names", "nothing in PYTHONPATH or the current folder hides a module")


def proxies(hosts: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> Finding:
    """What is asked through a proxy though it may lie inside.

    Args:
        hosts: whom a run asks -> its address.
        environment: whose proxies count.
    """
    names = surroundings.proxies_in_force(dict(environment))
    if not names:
        return fine("proxies", "none")
    bypass: Any = vars(urllib.request)["proxy_bypass_environment"]  # as urllib, httpx and boto3 read no_proxy
    rules = {"no": environment.get("no_proxy") or environment.get("NO_PROXY", "")}
    asked = {
        f"{who} ({host})"
        for who, url in hosts.items()
        if (host := surroundings.host_of(url)) and host not in surroundings.LOOPBACK
        if not bypass(host, rules)
    }
    if asked:
        says = f"{names} set: {', '.join(sorted(asked))} will be asked through it"
        return look("proxies", says, "where it lies inside your network, add its host to no_proxy")
    return fine("proxies", f"{names} set; this machine and what is named are asked directly")


def temporary(environment: Mapping[str, str] = os.environ) -> Finding:
    """The folder of temporary files, and that of Ray's sockets, whose paths must be short."""
    wanted = environment.get("TMPDIR")
    used = tempfile.gettempdir()
    sockets = environment.get("RAY_TMPDIR") or wanted or "/tmp"
    if not surroundings.sockets_fit(sockets):
        says = f"Ray's sockets would lie in {sockets}: longer than a socket's path may be"
        return wrong("TMPDIR", says, "unset RAY_TMPDIR, or set it to a folder of at most 35 characters")
    if wanted and Path(wanted).resolve() != Path(used).resolve():
        says = f"{wanted} can't be used, so temporary files go to {used}"
        return look("TMPDIR", says, f"make {wanted} a folder that you may write in, or unset TMPDIR")
    return fine("TMPDIR", f"{used}; Ray's sockets in {sockets}")


def home(environment: dict[str, str] | None = None) -> Finding:
    """The home, where histories, tokens and downloads lie."""
    found = dict(os.environ) if environment is None else environment
    place = surroundings.home_folder(found)
    if surroundings.can_write_home(found):
        return fine("HOME", str(place))
    says = (
        f"{place or '(none)'} can't be written: histories, tokens and downloads lie in {found.get('HF_HOME')}"
    )
    return look("HOME", says, "set HOME to a folder of yours that stays, or nothing is kept between runs")


def _hiding(folder: Path, known: frozenset[str]) -> Iterator[Path]:
    """What in a folder Python would take for one of these modules, before the real one."""
    if not folder.is_dir() or folder.resolve() in _real_places():
        return
    for path in sorted(folder.iterdir()):
        is_module = path.suffix == ".py" or (path / "__init__.py").is_file()
        if is_module and path.stem in known and not _is_ours(path):
            yield path


def _module_names() -> frozenset[str]:
    """Of the standard library and of all that is installed beside maskmill."""
    found = set(sys.stdlib_module_names) | {"maskmill"}
    for place in _real_places():
        if place.name in ("site-packages", "dist-packages") and place.is_dir():
            found |= {
                path.stem
                for path in place.iterdir()
                if path.suffix == ".py" or (path / "__init__.py").is_file()
            }
    return frozenset(name for name in found if not name.startswith(("test", "_")))


def _real_places() -> set[Path]:
    places: Iterable[str] = [
        *site.getsitepackages(),
        site.getusersitepackages(),
        sysconfig.get_paths()["stdlib"],
    ]
    return {Path(place).resolve() for place in places}


def _is_ours(path: Path) -> bool:
    """Whether it is the very package that runs: a checkout's own folder."""
    return path.resolve() == Path(__file__).resolve().parents[3] / "maskmill"


def _shown(paths: list[Path]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(str(path) for path in paths[:SHOWN]) + more
