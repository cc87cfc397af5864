"""Files over HTTP on loopback: ranges, ETags, and connections that are cut when a test says so."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.loopback import answering


@dataclass
class Files:
    """What is served: path -> bytes.

    Attributes:
        cuts: bytes after which the next answers end, one each.
        takes_ranges: whether a ranged request is answered with its range.
        asked: of each request, its path and Range.
        statuses: of the next answers, instead of a file.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    takes_ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving_files() -> Iterator[Files]:
    """A server on a free port while the block runs."""
    found = Files()

    class Handler(_Handler):
        files = found

    with answering(Handler) as found.url:
        yield found


class _Handler(BaseHTTPRequestHandler):
    files: Files

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        with self.files.lock:
            self.files.asked.append((self.path, asked))
            status = self.files.statuses.pop(0) if self.files.statuses else None
            cut = self.files.cuts.pop(0) if self.files.cuts else None
        data = self.files.files.get(self.path)
        if status is not None or data is None:
            self.send_error(status or 404)
            return
        tag = f'"{hashlib.sha1(data).hexdigest()}"'
        start = 0
        if asked and self.files.takes_ranges and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(data[start : None if cut is None else start + cut])
