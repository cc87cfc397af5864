"""Proxies, long folders for sockets and homes that can't be written don't keep a run from starting."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskmill.flows.services import surroundings
from maskmill.flows.services.prefect.server import PrefectServerError, check_answers
from maskmill.flows.services.surroundings import (
    LOOPBACK,
    NoPlace,
    open_directly,
    open_url,
    own_folder,
    settle,
)

LONG = "net/scratch/people/somebody-with-a-long-name/slurm_jobdir/1355700/tmp.t0016/and-some-more"


@pytest.fixture
def page() -> Iterator[str]:
    """A server on the loopback address."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_loopback_is_asked_directly(name: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    for ask in (open_directly, open_url):
        with ask(page, timeout_s=5.0) as answer:
            assert answer.read() == b"ok"
    check_answers(page, timeout_s=5.0)


def test_what_lies_elsewhere_goes_by_the_proxy_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(PrefectServerError, match=r"proxy of http_proxy.*no_proxy"):
        check_answers("http://prefect.example:4200/api", timeout_s=5.0)


def test_a_proxys_exceptions_keep_what_they_had() -> None:
    environment = {"https_proxy": "http://proxy:3128", "no_proxy": ".corp, 10.0.0.1", "HOME": "/tmp"}
    settle(environment)
    for name in ("no_proxy", "NO_PROXY"):
        assert environment[name].split(",") == [".corp", "10.0.0.1", *LOOPBACK]
    again = dict(environment)
    assert settle(environment) == () and environment == again


@pytest.mark.parametrize("given", [{}, {"http_proxy": ""}, {"http_proxy": "http://p", "no_proxy": "*"}])
def test_nothing_is_added_that_nobody_needs(given: dict[str, str]) -> None:
    environment = {**given, "HOME": "/tmp"}
    settle(environment)
    assert environment.get("no_proxy") == given.get("no_proxy")


def test_sockets_lie_in_a_short_folder_of_our_own(tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path / LONG), "HOME": str(tmp_path)}
    settle(environment)
    folder = Path(environment["RAY_TMPDIR"])
    assert folder == own_folder() and len(str(folder)) + len(surroundings.RAY_SOCKET) <= 107
    assert folder.stat().st_mode & 0o077 == 0 and folder.stat().st_uid == os.getuid()


@pytest.mark.parametrize("given", [{}, {"TMPDIR": "/tmp"}, {"TMPDIR": "/very" * 30, "RAY_TMPDIR": "/r"}])
def test_a_short_or_chosen_folder_stays(given: dict[str, str], tmp_path: Path) -> None:
    environment = {**given, "HOME": str(tmp_path)}
    settle(environment)
    assert environment.get("RAY_TMPDIR") == given.get("RAY_TMPDIR")


@pytest.mark.parametrize("home", ["/dev/null", "/nowhere/at/all", "/proc"])
def test_homes_fall_back_and_it_is_said(home: str) -> None:
    environment = {"HOME": home, "PREFECT_HOME": "/chosen"}
    (line,) = settle(environment)
    assert home in line and "RAY_AUTH_TOKEN_PATH" in line and "PREFECT_HOME" not in line.split("(set")[1]
    assert environment["PREFECT_HOME"] == "/chosen"
    assert Path(environment["RAY_AUTH_TOKEN_PATH"]).parent.is_dir()
    assert settle(environment) == ()


def test_a_name_that_somebody_else_took_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "SHORT_PLACES", (str(tmp_path),))
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"maskmill-{os.getuid()}").symlink_to(tmp_path / "theirs")
    folder = own_folder()
    assert folder.parent == tmp_path and folder.name.startswith("mm-") and not folder.is_symlink()


def test_no_place_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "SHORT_PLACES", ("/dev/null", "/proc"))
    with pytest.raises(NoPlace, match="set RAY_TMPDIR, PREFECT_HOME"):
        own_folder()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_run_starts_in_the_worst_of_surroundings(tmp_path: Path) -> None:
    """All three at once, for real: a proxy that doesn't answer, a long TMPDIR, no home."""
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8).repeat(6, 0).repeat(6, 1)
    Image.fromarray(pixels).save(tmp_path / "photos" / "0.png")
    (tmp_path / LONG).mkdir(parents=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT", "RAY", "MASKMILL", "HF_")) and name.lower() != "no_proxy"
    }
    proxy = f"http://127.0.0.1:{closed_port()}"
    worst = {"http_proxy": proxy, "https_proxy": proxy, "TMPDIR": str(tmp_path / LONG), "HOME": "/dev/null"}
    words = ["generate", str(tmp_path / "ds"), "--input", str(tmp_path / "photos"), "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "maskmill", *words, "--set", "masks.points_per_side=4"],
        env={**kept, **worst},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the home folder /dev/null can't be written" in done.stderr


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "http_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("socks5://127.0.0.1:9", "is a SOCKS proxy"),
        ("socks5h://user:pl4nted@host:1080", "is a SOCKS proxy"),
        ("socks4://host:1080", "speaks socks4"),
        ("http://bob:pl4nted/et@proxy:3128", "is no address of a proxy"),
        ("http://", "is no address of a proxy"),
        ("http://host:port", "is no address of a proxy"),
        ("http://[bad", "is no address of a proxy"),
    ],
)
def test_a_proxy_that_nothing_can_use_is_left_out_and_said(name: str, proxy: str, told: str) -> None:
    environment = {"HOME": "/tmp", name: proxy}
    (line,) = settle(environment)
    assert line.startswith(name) and told in line and "pl4nted" not in line
    assert name not in environment
    assert settle(environment) == ()


@pytest.mark.parametrize(
    "proxy", ["proxy.corp:8080", "http://proxy", "https://bob:p%2Fw@proxy:3128", "http://[::1]:3128/"]
)
def test_a_proxy_that_can_be_used_stays(proxy: str) -> None:
    environment = {"HOME": "/tmp", "https_proxy": proxy}
    assert settle(environment) == () and environment["https_proxy"] == proxy


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:9"},
        {"http_proxy": "http://a:b/c@proxy:1"},
        {"http_proxy": "http://proxy:1", "no_proxy": "127.0.0.0/8,[::1]:80, .corp,[fe80::1]"},
        {"HTTPS_PROXY": "proxy:1", "NO_PROXY": "*"},
    ],
)
def test_prefects_client_starts_in_what_is_left(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settle()
    httpx.Client(base_url="http://127.0.0.1:1").close()
