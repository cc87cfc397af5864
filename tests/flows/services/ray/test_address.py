"""What a Ray address is, and what is told at once of one that cannot be joined (see test_second_machine)."""

from __future__ import annotations

import socket
import time

import pytest

from maskmill.flows.services.ray.address import ClusterError, Place, check_joinable, connect_advice, place_of
from tests.ports import free_port


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("head:6379", Place("head", 6379, by_client=False)),
        ("10.0.0.7:1", Place("10.0.0.7", 1, by_client=False)),
        ("[::1]:6379", Place("::1", 6379, by_client=False)),
        ("ray://head:10001", Place("head", 10001, by_client=True)),
        ("ray://[fd00::7]:10001", Place("fd00::7", 10001, by_client=True)),
    ],
)
def test_an_address_has_a_host_and_a_port(address: str, place: Place) -> None:
    assert place_of(address) == place
    assert str(place) == address


@pytest.mark.parametrize("word", ["auto", "local"])
def test_rays_own_words_are_left_to_it(word: str) -> None:
    assert place_of(word) is None
    check_joinable(word)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "head",
        "head:",
        ":6379",
        "head:ray",
        "head:0",
        "head:65536",
        "http://head:8265",
        "ray://head",
        "ray://",
    ],
)
def test_what_is_no_address_is_told_with_what_is(address: str) -> None:
    with pytest.raises(ClusterError, match=r"no address of a Ray cluster: use HOST:6379.*ray://HOST:10001"):
        check_joinable(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nothing_listens_is_told_at_once(scheme: str) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"nothing answers at .*refused.* Cure: check host and port"):
        check_joinable(f"{scheme}127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 5


@pytest.mark.ray
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_another_program_at_the_port_is_told_as_such(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    monkeypatch.setattr("maskmill.flows.services.ray.address.ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match="not as Ray does: another program listens there"):
            check_joinable(address)


def test_what_ray_says_is_one_line_and_a_cure() -> None:
    told = connect_advice("head:6379", RuntimeError("Version mismatch\n  details"))
    assert "at head:6379: Version mismatch\nCure: " in told
    assert "could not start on this machine" in connect_advice(None, RuntimeError())
