"""Write faults beneath a local store, and the proxy before a stand-in for an S3 store."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from maskmill.storage.errors import OutOfSpace, StoreUnavailable
from maskmill.storage.stores.open import open_store
from maskmill.workers.drill import disk, proxy
from maskmill.workers.drill.orders import Order, Orders

ROOT = Path(__file__).parents[3]


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    return Orders(tmp_path / "orders")


@pytest.fixture
def faulty_disk(orders: Orders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("fsync", "link"):
        monkeypatch.setattr(os, name, getattr(os, name))  # to be put back
    disk.install(orders, str(tmp_path / "data"))
    return str(tmp_path / "data")


def test_a_refused_write_fails_once_and_leaves_nothing(faulty_disk: str, orders: Orders) -> None:
    store = open_store(faulty_disk)
    orders.give(Order(1, disk.REFUSED_WRITE))
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("a/b", b"bytes")
    assert list(store.list()) == []
    assert store.put_if_absent("a/b", b"bytes") and store.read("a/b") == b"bytes"


def test_a_full_disk_says_so(faulty_disk: str, orders: Orders) -> None:
    orders.give(Order(1, disk.FULL_DISK))
    with pytest.raises(OutOfSpace), open_store(faulty_disk).open_write("a") as target:
        target.write(b"bytes")


def test_writes_elsewhere_are_left_alone(faulty_disk: str, orders: Orders, tmp_path: Path) -> None:
    orders.give(Order(1, disk.REFUSED_WRITE))
    assert open_store(tmp_path / "other").put_if_absent("a", b"bytes")
    assert orders.num_open() == 1


@pytest.mark.parametrize(
    ("kind", "name", "there"),
    [(disk.TORN_WRITE, "commits/1", False), (disk.DIES_AT_COMMIT, "commits/1", True)],
)
def test_a_process_that_dies_writing(
    kind: str, name: str, there: bool, orders: Orders, tmp_path: Path
) -> None:
    orders.give(Order(1, kind))
    code = (
        "import sys; from pathlib import Path; from maskmill.storage.stores.open import open_store\n"
        "from maskmill.workers.drill import disk; from maskmill.workers.drill.orders import Orders\n"
        "disk.install(Orders(Path(sys.argv[1])), sys.argv[2])\n"
        f"open_store(sys.argv[2]).put_if_absent('x/{name}', b'1234567890')"
    )
    root = str(tmp_path / "data")
    done = subprocess.run([sys.executable, "-c", code, orders.folder, root], cwd=ROOT, check=False)
    assert done.returncode == -9 and orders.taken() == {kind: 1}
    assert [found.name for found in open_store(root).list()] == ([f"x/{name}"] if there else [])
    left = [path.stat().st_size for path in Path(root).rglob(".tmp-*")]
    assert left == ([10] if there else [5])


class _Echo(BaseHTTPRequestHandler):
    """Answers with what it got, and remembers it."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, int]]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Host"], len(body)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def upstream() -> Iterator[tuple[str, list[tuple[str, str, int]]]]:
    class Handler(_Echo):
        seen: list[tuple[str, str, int]] = []  # noqa: RUF012 - one server, one list

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Handler.seen
    server.shutdown()
    server.server_close()
    thread.join()


def put(address: str, size: int = 100) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    try:
        connection.request("PUT", "/bucket/a%20b?x=1", body=b"x" * size, headers={"X-Signed": "yes"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_proxy_relays_requests_as_they_were_signed(
    upstream: tuple[str, list[tuple[str, str, int]]], orders: Orders
) -> None:
    address, seen = upstream
    with proxy.running_proxy(address, orders) as way:
        assert put(way) == (200, b"x" * 100)
        assert seen == [("/bucket/a%20b?x=1", urlsplit(way).netloc, 100)]


@pytest.mark.parametrize(
    ("kind", "number", "status", "num_seen"),
    [
        (proxy.HTTP_500, 1, 500, 0),
        (proxy.HTTP_500, 2, 500, 1),
        (proxy.HTTP_503, 1, 503, 0),
        (disk.FULL_DISK, 1, 507, 0),
        (proxy.CUT, 1, None, 0),
        (proxy.CUT, 2, None, 1),
        (proxy.TORN_UPLOAD, 1, None, 0),
    ],
)
def test_the_proxy_misbehaves_once(
    upstream: tuple[str, list[tuple[str, str, int]]],
    orders: Orders,
    kind: str,
    number: int,
    status: int | None,
    num_seen: int,
) -> None:
    address, seen = upstream
    orders.give(Order(number, kind))
    with proxy.running_proxy(address, orders) as way:
        if status is None:
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                put(way)
        else:
            assert put(way)[0] == status
        assert len([one for one in seen if one[2] == 100]) == num_seen
        assert put(way)[0] == 200
    assert orders.taken() == {kind: 1}
