"""What a machine puts around a run, set right before anything starts: proxies, sockets' folder, homes.

    http_proxy set            what runs on this machine is asked directly: loopback goes into no_proxy, which
                              Prefect's client, Ray's and the workers' libraries read
    a proxy that can't be     SOCKS without the package for it, or no address at all: Prefect's client would
      used                    not even start, so it is left out, and said
    a long TMPDIR             a socket's path holds 107 bytes: Ray's lie in a short folder of our own
    a HOME that can't be      Prefect's, Ray's and our own files lie in that folder too, and it is said
      written

But for such a proxy, only variables that nobody has set are set; what is started later inherits them. It
doesn't know whether a proxy is right for anything else, nor whether /tmp has room.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib.request

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_SOCKET_BYTES = 107
RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""What Ray puts behind its folder."""

SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")

_IN_HOME = {
    "PREFECT_HOME": ".prefect",
    "RAY_AUTH_TOKEN_PATH": ".ray/auth_token",
    "MASKMILL_HOME": ".maskmill",
    "MASKMILL_CACHE": ".cache/maskmill",
    "HF_HOME": ".cache/huggingface",
}
"""Variables of those who write in the home, and where."""

Environment = MutableMapping[str, str]


class NoPlace(OSError):
    """No folder on this machine is short and writable enough: says which variables name one."""


def settle(environment: Environment = os.environ) -> tuple[str, ...]:
    """Sets what is missing, and says what a person should know; asked again, it changes nothing.

    Args:
        environment: of this process.

    Raises:
        NoPlace: a folder is needed and none can be made.
    """
    told = _leave_out_unusable_proxies(environment)
    _ask_loopback_directly(environment)
    if "RAY_TMPDIR" not in environment and not sockets_fit(environment.get("TMPDIR", "/tmp")):
        environment["RAY_TMPDIR"] = str(own_folder())
    missing = {name: place for name, place in _IN_HOME.items() if name not in environment}
    if not missing or can_write_home(environment):
        return told
    folder = own_folder() / "home"
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, place in missing.items():
        environment[name] = str(folder / place)
        Path(environment[name]).parent.mkdir(parents=True, exist_ok=True)
    if "RAY_AUTH_TOKEN_PATH" in missing:
        keep_token(Path(environment["RAY_AUTH_TOKEN_PATH"]))
    return (
        *told,
        f"the home folder {home_folder(environment) or '(none)'} can't be written: histories, tokens and "
        f"downloads lie in {folder} (set {', '.join(missing)} to keep them elsewhere)",
    )


def keep_token(path: Path) -> None:
    """A token of Ray's at `path`, made where there is none. Raises OSError."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))


def open_directly(request: urllib.request.Request | str, *, timeout_s: float) -> Any:
    """`urllib.request.urlopen` without any proxy, for what runs on this machine; raises what it raises."""
    import urllib.request  # every command settles, few ask

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=timeout_s)


def open_url(request: urllib.request.Request | str, *, timeout_s: float) -> Any:
    """Directly where the host is this machine's loopback, else as the environment's proxies say."""
    import urllib.request

    url = request if isinstance(request, str) else request.full_url
    if host_of(url) in LOOPBACK:
        return open_directly(request, timeout_s=timeout_s)
    return urllib.request.urlopen(request, timeout=timeout_s)


def host_of(url: str) -> str | None:
    """The host that an address names; None where it names none that could be asked."""
    import urllib.parse

    try:
        return urllib.parse.urlsplit(url).hostname
    except ValueError:  # `http://[bad`
        return None


def proxies_in_force(environment: Environment = os.environ) -> str:
    """The proxies that are set, for a message: "" for none."""
    found = [name for name in PROXIES if environment.get(name) or environment.get(name.upper())]
    return ", ".join(found)


def own_folder() -> Path:
    """A short folder that this user alone can enter, made where there is none.

    Raises:
        NoPlace: in none of `SHORT_PLACES`.
    """
    for place in SHORT_PLACES:
        folder = Path(place, f"maskmill-{os.getuid()}")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            is_ours = (
                stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
            )
            if is_ours and os.access(folder, os.W_OK | os.X_OK):
                return folder
            return Path(tempfile.mkdtemp(prefix="mm-", dir=place))  # somebody else took the name
        except OSError:
            continue
    raise NoPlace(
        f"none of {', '.join(SHORT_PLACES)} can be written, and sockets need a short path: set RAY_TMPDIR, "
        "PREFECT_HOME and RAY_AUTH_TOKEN_PATH to writable places, RAY_TMPDIR of at most 35 characters"
    )


def _leave_out_unusable_proxies(environment: Environment) -> tuple[str, ...]:
    """Takes away proxies by which nothing could be asked; a line for each, without its value."""
    names = (*PROXIES, *(name.upper() for name in PROXIES))
    unusable = {name: why for name in names if (why := _why_unusable(environment.get(name, "")))}
    for name in unusable:
        del environment[name]
    return tuple(f"{name} {why}; it is left out for this run" for name, why in unusable.items())


def _why_unusable(proxy: str) -> str:
    """What is wrong with a proxy's address, and what to do; "" for one that can be used, or none."""
    import urllib.parse
    from importlib.util import find_spec

    try:
        found = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        named = bool(found.hostname) and (found.port is None or found.port > 0)
    except ValueError:
        named = False
    if not proxy:
        return ""
    if not named:
        return "is no address of a proxy (in a name or password / is written %2F, @ %40)"
    if found.scheme in ("http", "https"):
        return ""
    if not found.scheme.startswith("socks5"):
        return f"names a proxy that speaks {found.scheme}, and none but http, https and socks5 is known"
    has_socks = find_spec("socksio") is not None
    return (
        ""
        if has_socks
        else "is a SOCKS proxy, which needs a package that isn't installed (pip install socksio)"
    )


def _ask_loopback_directly(environment: Environment) -> None:
    """Both spellings: libraries read one or the other, and where both are set they are kept apart."""
    if not proxies_in_force(environment):
        return
    for name in ("no_proxy", "NO_PROXY"):
        other = environment.get("NO_PROXY" if name == "no_proxy" else "no_proxy", "")
        given = [host.strip() for host in environment.get(name, other).split(",")]
        hosts = [_without_brackets(host) for host in given if host]
        if "*" not in hosts:
            environment[name] = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])


def _without_brackets(host: str) -> str:
    """`[::1]:80` -> `::1`: Prefect's client takes a host in brackets for a broken address, and ends."""
    return host[1:].partition("]")[0] if host.startswith("[") else host


def sockets_fit(folder: str) -> bool:
    """Whether Ray's sockets can lie in a folder: their paths may not be longer than the system's limit."""
    return len(os.fsencode(folder)) + len(RAY_SOCKET) <= MAX_SOCKET_BYTES


def can_write_home(environment: Environment) -> bool:
    """Whether a folder can be made in it."""
    place = home_folder(environment)
    if place is None:
        return False
    try:
        Path(tempfile.mkdtemp(prefix=".maskmill-", dir=place)).rmdir()  # modes say yes to root anywhere
    except OSError:
        return False
    return True


def home_folder(environment: Environment) -> Path | None:
    """The user's home; None where the system knows none."""
    if "HOME" in environment:
        return Path(environment["HOME"])
    try:
        return Path.home()
    except RuntimeError:
        return None
