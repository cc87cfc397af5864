"""Weights fetched by their address, once a machine: resumed, checked, and there only when whole.

A file grows as <file>.part and is named <file> when its sha256 is known to be right; a fetch that was cut
goes on from there, by a ranged request that the server may refuse (then it begins again). Of several
processes of a machine one fetches, the others wait at a lock and find it. Without a sha256 to hold it
against, the one it has is recorded, and every later fetch of that address is held against the record.

Nothing is fetched while HF_HUB_OFFLINE or MASKMILL_OFFLINE is set: 1. MASKMILL_WEIGHTS_MIRROR names a place
that has the files of settings/published.py by their names; what comes from it is checked all the same.

It asks nobody: who calls has been told to. It doesn't know models of the hub (pipeline/weights/hub.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from maskmill.pipeline.settings.published import PUBLISHED, Published, published, size_text
from maskmill.pipeline.weights.errors import DamagedWeights, MissingWeights
from maskmill.pipeline.weights.kept import Record, read_record, record_path, weights_folder
from maskmill.storage.secret_words import blank_secrets

if TYPE_CHECKING:
    from maskmill.pipeline.settings import SegmenterSettings

CHUNK_BYTES = 1 << 20
TRIES = 5
TIMEOUT_S = 60.0
OFFLINE = ("MASKMILL_OFFLINE", "HF_HUB_OFFLINE")

Progress = Callable[[int, int | None], None]
"""Told bytes that are there, and bytes in all where the server says."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file to fetch.

    Args:
        url: its address, http or https.
        file_name: what it is called here.
        size_bytes: in all; None is unknown until the server says.
        sha256: what it must be, in hex; None where nobody says.
        licence: its terms; "" where nobody says.
        page: where it is told of.
        told_by: whose sha256 it is.
    """

    url: str
    file_name: str
    size_bytes: int | None = None
    sha256: str | None = None
    licence: str = ""
    page: str = ""
    told_by: str = ""

    @property
    def path(self) -> Path:
        """Where it lies when it is whole."""
        return weights_folder() / self.file_name


def wanted(source: str) -> Wanted:
    """What a word, a file name of its authors', or an address stands for.

    Raises:
        MissingWeights: neither; the words are listed.
    """
    one = published(source)
    if one is not None:
        return of_published(one)
    try:
        parts = urllib.parse.urlsplit(source)
    except ValueError:  # `http://[bad`
        parts = urllib.parse.SplitResult("", "", "", "", "")
    name = Path(urllib.parse.unquote(parts.path)).name
    if parts.scheme in ("http", "https") and parts.hostname and name:
        return _as_recorded(Wanted(url=source, file_name=name, page=parts.hostname))
    raise MissingWeights(
        f"{source} is no word for weights and no http address of a file: use one of "
        f"{', '.join(one.name for one in PUBLISHED)}"
    )


def of_published(one: Published) -> Wanted:
    """A file of the table, from its authors or from the mirror that MASKMILL_WEIGHTS_MIRROR names."""
    mirror = os.environ.get("MASKMILL_WEIGHTS_MIRROR")
    return Wanted(
        url=f"{mirror.rstrip('/')}/{one.file_name}" if mirror else one.url,
        file_name=one.file_name,
        size_bytes=one.size_bytes,
        sha256=one.sha256,
        licence=one.licence,
        page=one.page,
        told_by="maskmill's table",
    )


def fetch(one: Wanted, progress: Progress = lambda done, total: None) -> Path:
    """The file, fetched where it isn't there yet.

    Args:
        one: what.
        progress: told how far it is.

    Raises:
        MissingWeights: offline, or the server doesn't give it; the part that came is kept for the next try.
        DamagedWeights: what came has another sha256; it is removed.
        OSError: it can't be written here.
    """
    if one.path.is_file():
        return one.path
    one.path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(one):
        if not one.path.is_file():
            _check_online(one)
            part = one.path.with_name(f"{one.file_name}.part")
            _fill(one, part, progress)
            _accept(one, part)
    return one.path


def record_of(path: Path) -> Record | None:
    """What a fetched file was found to be; None if it was brought by hand."""
    return read_record(path)


def bring_published(settings: SegmenterSettings) -> None:
    """Fetches the weights that settings name by a word, if they lack on this machine: for a worker on another
    node than the one that was told to. Raises as `fetch`."""
    source = settings.weights
    one = published(source) if source is not None else None
    if one is not None and source is not None and not Path(source).expanduser().exists():
        fetch(of_published(one))


def _as_recorded(one: Wanted) -> Wanted:
    """With the sha256 of an earlier fetch of this address."""
    record = read_record(one.path)
    if record is None or record.url != blank_secrets(one.url):
        return one
    return dataclasses.replace(one, sha256=record.sha256, told_by="the record of its first fetch here")


def _check_online(one: Wanted) -> None:
    for name in OFFLINE:
        if os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on"):
            raise MissingWeights(
                f"{one.file_name} is not on this machine ({one.path}), and {name} forbids fetching it: unset "
                f"it, or bring the file there from {one.page}"
            )


@contextlib.contextmanager
def _alone(one: Wanted) -> Iterator[None]:
    """One process of this machine at a time; the lock goes with the process."""
    with one.path.with_name(f".{one.file_name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill(one: Wanted, part: Path, progress: Progress) -> None:
    """Brings `part` to the whole file; a broken connection is taken up again where it broke."""
    last: OSError | http.client.HTTPException | None = None
    tried = 0
    while tried < TRIES:
        time.sleep(min(2.0**tried, 10.0) / 4 if tried else 0.0)
        tried, before = tried + 1, _size(part)
        try:
            if _receive(one, part, progress):
                return
            last = ConnectionError("the connection ended early")
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code < 500 and exc.code != 429:
                raise MissingWeights(_refused(one, f"{exc.code} {exc.reason}")) from exc
            last = exc
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as exc:
            last = exc
        if _size(part) > before:
            tried = 1  # it moves
    raise MissingWeights(_refused(one, str(last))) from last


def _receive(one: Wanted, part: Path, progress: Progress) -> bool:
    """Appends what lacks; whether the file is whole now."""
    there = _size(part)
    if one.size_bytes is not None and there > one.size_bytes:
        part.unlink()
        there = 0
    if there and there == one.size_bytes:
        return True
    etag = part.with_name(f"{part.name}.etag")
    headers = {"User-Agent": "maskmill"}
    if there:
        headers["Range"] = f"bytes={there}-"
        if etag.exists():
            headers["If-Range"] = etag.read_text()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(one.url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as exc:
        if exc.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not there:
            raise
        exc.close()
        part.unlink()  # longer than what is there now: another file
        return _receive(one, part, progress)
    with answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        there = there if resumed else 0
        length = answer.headers.get("Content-Length")
        total = there + int(length) if length is not None else one.size_bytes
        if not resumed and (tag := answer.headers.get("ETag")) and not tag.startswith("W/"):
            etag.write_text(tag)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                there += len(chunk)
                progress(there, total)
    return total is None or there == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _accept(one: Wanted, part: Path) -> None:
    """Names the file that is whole, and records it.

    Raises:
        DamagedWeights: it is another one.
    """
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if one.sha256 is not None and found != one.sha256:
        part.unlink()
        raise DamagedWeights(
            f"{one.file_name} from {blank_secrets(one.url)} has sha256 {found[:12]}..., but {one.told_by} "
            f"says {one.sha256[:12]}...: it was removed. Fetch it again; if it stays so, what lies there is "
            "another file, or something between changes it"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    record = Record(sha256=found, url=blank_secrets(one.url), checked_against=one.told_by)
    record_path(one.path).write_text(json.dumps(dataclasses.asdict(record)) + "\n", encoding="utf-8")
    part.rename(one.path)
    part.with_name(f"{part.name}.etag").unlink(missing_ok=True)


def _refused(one: Wanted, why: str) -> str:
    where = urllib.parse.urlsplit(one.url).netloc.rpartition("@")[2]
    size = f" ({size_text(one.size_bytes)})" if one.size_bytes else ""
    return (
        f"{one.file_name}{size} cannot be fetched from {where}: {why}. What came is kept; the same command "
        f"goes on. Without a network, bring the file from {one.page} to {one.path}, or name its path"
    )
