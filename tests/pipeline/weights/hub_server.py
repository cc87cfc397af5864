"""A model hub on loopback: what huggingface_hub asks of one, over folders; counts what it hands out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.loopback import answering


@dataclass
class Hub:
    """The server's models: `owner/name` -> revision -> folder; `main` is the commit that `heads` says."""

    url: str = ""
    commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    served: Counter[str] = field(default_factory=Counter)
    tokens: list[str | None] = field(default_factory=list)

    def add(self, name: str, folder: Path) -> str:
        """A new commit of a model; returns its hash."""
        commit = hashlib.sha1(f"{name} {len(self.commits.get(name, {}))}".encode()).hexdigest()
        self.commits.setdefault(name, {})[commit] = folder
        self.heads[name] = commit
        return commit


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a free port while the block runs."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with answering(Handler) as hub.url:
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        rest = parts[4:] if is_api else parts[2:]
        self.hub.tokens.append(self.headers.get("Authorization"))
        if name not in self.hub.commits:
            return self._refuse(404, "RepoNotFound")
        if name in self.hub.gated and not self.headers.get("Authorization"):
            return self._refuse(403, "GatedRepo")
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self.hub.heads[name] if revision == "main" else revision
        folder = self.hub.commits[name].get(commit)
        if folder is None:
            return self._refuse(404, "RevisionNotFound")
        if is_api and (not rest or rest[0] == "revision"):
            return self._send(json.dumps({"id": name, "sha": commit, "siblings": []}).encode(), body, commit)
        if is_api and rest[0] == "tree":
            return self._send(
                json.dumps([_entry(path) for path in sorted(folder.iterdir())]).encode(), body, commit
            )
        path = folder.joinpath(*rest[2:])
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        if body:
            self.hub.served[path.name] += 1
        return self._send(path.read_bytes(), body, commit)

    def _send(self, data: bytes, body: bool, commit: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(path: Path) -> dict[str, object]:
    digest = hashlib.sha1(path.read_bytes()).hexdigest()
    return {"type": "file", "oid": digest, "size": path.stat().st_size, "path": path.name}
