"""A hub of datasets on loopback: what huggingface_hub asks to write one and `datasets` to read it, in memory.

Large files go as the hub has them go: the client tells their sha256 (LFS batch), puts the bytes at an address
it is given, and names them in a commit. A commit is whole or not there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.loopback import answering

LARGE_BYTES = 2_000


@dataclass
class DatasetHub:
    """The server's datasets: files of every commit; the last is `main`. `token` may write, nobody else."""

    url: str = ""
    token: str = "hf_may_write"
    commits: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: int = 0
    fail_uploads: int = 0

    def files(self, name: str) -> dict[str, bytes]:
        """The newest commit's files."""
        return self.commits[name][-1]


@contextmanager
def serving() -> Iterator[DatasetHub]:
    """A hub on a free port while the block runs."""
    hub = DatasetHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with answering(Handler) as hub.url:
        yield hub


def _sha(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: DatasetHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._read(body=False)

    def do_GET(self) -> None:
        self._read(body=True)

    def do_PUT(self) -> None:
        data = self._body()
        if self.hub.fail_uploads:
            self.hub.fail_uploads -= 1
            return self._json({"error": "storage"}, status=400)
        self.hub.blobs[hashlib.sha256(data).hexdigest()] = data
        self.hub.uploads += 1
        return self._json({})

    def do_POST(self) -> None:
        parts = self._parts()
        body = self._body()
        if parts[-1] != "paths-info" and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._json({"error": "no"}, status=401)
        if parts == ["api", "validate-yaml"]:
            head = json.loads(body)["content"].split("---\n")[1]
            wrong = [] if isinstance(yaml.safe_load(head), dict) else [{"message": "no mapping"}]
            return self._json({"errors": wrong, "warnings": []}, status=400 if wrong else 200)
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.hub.commits:
                return self._json({"url": f"{self.hub.url}/datasets/{name}"}, status=409)
            self.hub.commits[name] = [{}]
            return self._json({"url": f"{self.hub.url}/datasets/{name}", "id": name})
        if parts[-1] == "batch":
            return self._json(
                {"transfer": "basic", "objects": [self._lfs(one) for one in json.loads(body)["objects"]]}
            )
        name = "/".join(parts[2:4])
        if "preupload" in parts:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": one["path"],
                    "shouldIgnore": False,
                    "uploadMode": "lfs" if one["size"] > LARGE_BYTES else "regular",
                }
                for one in files
            ]
            return self._json({"files": modes})
        if "commit" in parts:
            return self._commit(name, [json.loads(line) for line in body.splitlines() if line.strip()])
        if parts[-1] == "paths-info":
            asked = json.loads(body) if body.startswith(b"{") else parse_qs(body.decode())
            tree = {one["path"]: one for one in _tree(self.hub.files(name), "", recursive=True)}
            return self._json([tree[path] for path in asked["paths"] if path in tree])
        return self._json({"error": "unknown"}, status=404)

    def _lfs(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.hub.blobs:
            return {"oid": asked["oid"], "size": asked["size"]}
        upload = {"href": f"{self.hub.url}/upload/{asked['oid']}", "header": {}}
        return {**asked, "actions": {"upload": upload}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.files(name))
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.commits[name].append(files)
        sha = _sha(len(self.hub.commits[name]))
        url = f"{self.hub.url}/datasets/{name}/commit/{sha}"
        return self._json({"commitUrl": url, "commitOid": sha, "success": True, "hookOutput": ""})

    def _read(self, *, body: bool) -> None:
        parts = self._parts()
        is_api = parts[:1] == ["api"]
        name = "/".join(parts[2:4] if is_api else parts[1:3])
        rest = parts[4:] if is_api else parts[3:]
        if (
            parts[: 2 if is_api else 1] not in (["api", "datasets"], ["datasets"])
            or name not in self.hub.commits
        ):
            return self._json({"error": "RepoNotFound"}, status=404, body=body, code="RepoNotFound")
        files, sha = self.hub.files(name), _sha(len(self.hub.commits[name]))
        if is_api and rest[:1] == ["tree"]:
            recursive = "recursive=true" in urlsplit(self.path).query.lower()
            return self._json(_tree(files, "/".join(rest[2:]), recursive=recursive), body=body, sha=sha)
        if is_api:
            siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
            return self._json(
                {"id": name, "sha": sha, "siblings": siblings, "tags": [], "private": False}, body=body
            )
        path = "/".join(rest[2:])
        if path not in files:
            return self._json({"error": "EntryNotFound"}, status=404, body=body, code="EntryNotFound")
        return self._send(files[path], 200, body, sha, ranged=self.headers.get("Range"))

    def _parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(
        self, value: Any, *, status: int = 200, body: bool = True, sha: str = "", code: str = ""
    ) -> None:
        self._send(json.dumps(value).encode(), status, body, sha, code=code)

    def _send(
        self, data: bytes, status: int, body: bool, sha: str, *, ranged: str | None = None, code: str = ""
    ) -> None:
        whole = len(data)
        etag = hashlib.sha256(data).hexdigest()
        if ranged:
            low, _, high = ranged.removeprefix("bytes=").partition("-")
            first, last = int(low), int(high) if high else whole - 1
            data, status = data[first : last + 1], 206
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if not sha else "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{etag}"')
        if ranged:
            self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
        if sha:
            self.send_header("X-Repo-Commit", sha)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if body:
            self.wfile.write(data)


def _tree(files: dict[str, bytes], under: str, *, recursive: bool) -> list[dict[str, Any]]:
    """The entries below a folder; folders have entries of their own."""
    found: dict[str, dict[str, Any]] = {}
    for path, data in files.items():
        parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
        for folder in parents:
            found[folder] = {"type": "directory", "oid": _sha(0), "size": 0, "path": folder}
        found[path] = _entry(path, data)
    prefix = f"{under}/" if under else ""
    below = {path: one for path, one in found.items() if path.startswith(prefix)}
    return [one for path, one in below.items() if recursive or "/" not in path.removeprefix(prefix)]


def _entry(path: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "oid": oid, "size": len(data), "path": path}
    if len(data) > LARGE_BYTES:
        sha = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 130}
    return entry
