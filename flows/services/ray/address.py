"""What stands at a Ray address, found out before Ray waits a minute for it.

    HOST:PORT          the port of the head's control service (6379). A driver joins by it only where a raylet
                       of that cluster runs: on one of its nodes
    ray://HOST:PORT    Ray's client server on the head (10001), from any machine that reaches it
    auto, local        Ray's own words, left to it

It doesn't know whether versions agree: Ray tells that itself, at once.
"""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CLIENT_PORT = 10001
REACH_S = 5.0
ANSWER_S = 10.0
REGISTER_S = 10.0
"""What a node that has just started may take until the cluster lists it."""

_WORDS = ("auto", "local")
_CLIENT = "ray://"


class ClusterError(RuntimeError):
    """The cluster cannot be joined or started, or is too small; says which and the cure."""


class WrongAddress(ClusterError, ValueError):
    """What was typed is no address of a cluster."""


@dataclasses.dataclass(frozen=True)
class Place:
    """An address in parts. `by_client`: it is `ray://`."""

    host: str
    port: int
    by_client: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_CLIENT if self.by_client else ''}{host}:{self.port}"


def place_of(address: str) -> Place | None:
    """The address in parts; None for Ray's own words.

    Raises:
        WrongAddress: it is neither HOST:PORT nor ray://HOST:PORT.
    """
    if address in _WORDS:
        return None
    host, colon, port = address.removeprefix(_CLIENT).rpartition(":")
    if "/" in host or not host or not colon or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise WrongAddress(
            f"{address!r} is no address of a Ray cluster: use HOST:6379 on one of its nodes, "
            f"ray://HOST:{CLIENT_PORT} from elsewhere"
        )
    return Place(host.strip("[]"), int(port), address.startswith(_CLIENT))


def check_joinable(address: str) -> None:
    """Looks whether a driver on this machine can join the cluster at `address`. Imports Ray.

    Raises:
        ClusterError: it is no address, nothing listens there, it is no Ray or wants another token, or this
            machine is none of its nodes; with the cure.
    """
    place = place_of(address)
    if place is None:
        return
    _check_reachable(place)
    _check_token(place)
    _check_answers(place)
    if place.by_client:
        return
    deadline = time.monotonic() + (REGISTER_S if _is_own(place.host) or _raylets_here() else 0.0)
    while not (nodes := _nodes(place)).keys() & _raylets_here():
        if time.monotonic() >= deadline:
            raise ClusterError(_no_node_advice(place, nodes.values()))
        time.sleep(0.5)


def connect_advice(address: str | None, exc: BaseException) -> str:
    """What to tell of Ray's own error on joining `address`, or (None) on starting here."""
    why = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    if address is None:
        return (
            f"Ray could not start on this machine: {why}\n"
            "Cure: check free space in /tmp and /dev/shm, and how busy the machine is: Ray wants its "
            "processes up within 15 s. Its own logs are in /tmp/ray/session_latest/logs"
        )
    return (
        f"no Ray cluster answers at {address}: {why}\n"
        "Cure: check the address that `ray start --head` printed, the firewall between, that both "
        "have the same token (~/.ray/auth_token), and the same versions of Ray and Python"
    )


def _check_reachable(place: Place) -> None:
    """Raises ClusterError where nothing listens."""
    try:
        with socket.create_connection((place.host, place.port), timeout=REACH_S):
            return
    except OSError as exc:
        serves = (
            f"`ray start --head` serves Ray's clients on port {CLIENT_PORT} (--ray-client-server-port)"
            if place.by_client
            else "`ray start --head` prints its address, on port 6379 by default (--port)"
        )
        raise ClusterError(
            f"nothing answers at {place}: {exc}. Cure: check host and port ({serves}), that the head listens "
            "on more than its loopback address, and the firewall between"
        ) from exc


def _check_token(place: Place) -> None:
    """Raises ClusterError where a token is to be shown and there is none: Ray would abort the process."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray.exceptions import AuthenticationError

    try:
        ensure_token_if_auth_enabled(None, create_token_if_missing=False)
    except (AuthenticationError, RuntimeError) as exc:
        raise ClusterError(_token_advice(place)) from exc


def _check_answers(place: Place) -> None:
    """Raises ClusterError where what listens is no Ray, the other of Ray's ports, or refuses our token."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

    protocol: Any = ray_client_pb2
    stub: Any = ray_client_pb2_grpc.RayletDriverStub
    ping = protocol.ClusterInfoRequest(type=protocol.ClusterInfoType.PING)
    with init_grpc_channel(str(place).removeprefix(_CLIENT)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
            stub(channel).ClusterInfo(ping, timeout=ANSWER_S)
            serves_clients: bool | None = True
        except grpc.FutureTimeoutError as exc:
            raise ClusterError(_other_program_advice(place)) from exc
        except grpc.RpcError as exc:
            if exc.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise ClusterError(_token_advice(place)) from exc
            # another failure may pass: Ray tries again, and says in the end what it was
            serves_clients = False if exc.code() == grpc.StatusCode.UNIMPLEMENTED else None
    if serves_clients not in (None, place.by_client):
        raise ClusterError(_other_port_advice(place))


def _nodes(place: Place) -> dict[str, str]:
    """Of the cluster's live nodes, by its control service: id -> address.

    Raises:
        ClusterError: it doesn't answer as Ray does.
    """
    from ray import _raylet
    from ray.core.generated import gcs_pb2
    from ray.exceptions import AuthenticationError, RayError

    raylet: Any = _raylet
    states: Any = gcs_pb2
    try:
        found = raylet.GcsClient(address=str(place)).get_all_node_info(timeout=REACH_S).values()
    except AuthenticationError as exc:
        raise ClusterError(_token_advice(place)) from exc
    except (RayError, RuntimeError, ValueError) as exc:
        raise ClusterError(connect_advice(str(place), exc)) from exc
    alive = [node for node in found if node.state == states.GcsNodeInfo.GcsNodeState.ALIVE]
    return {node.node_id.hex(): str(node.node_manager_address) for node in alive}


def _raylets_here() -> set[str]:
    """Ids of the Ray nodes that run on this machine, of whatever cluster."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text(errors="replace").split("\0")
        except OSError:
            continue  # it has ended
        if words[0].endswith("raylet"):
            found |= {word.partition("=")[2] for word in words if word.startswith("--node_id=")}
    return found


def _is_own(host: str) -> bool:
    """Whether `host` is an address of this machine."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.bind(where)
    except OSError:
        return False
    return True


def _token_advice(place: Place) -> str:
    return (
        f"{place} answers, but not to this machine's token. Cure: copy the head's ~/.ray/auth_token here, or "
        "set RAY_AUTH_TOKEN to what is in it"
    )


def _other_program_advice(place: Place) -> str:
    return f"{place} answers, but not as Ray does: another program listens there. Cure: check the port"


def _other_port_advice(place: Place) -> str:
    if place.by_client:
        return (
            f"{place} answers, but is no client server of Ray. Cure: name the port that the head serves "
            f"clients on, {CLIENT_PORT} unless `ray start --head --ray-client-server-port` names another"
        )
    return (
        f"{place} is the port that the head serves clients on. Cure: use --ray-address {_CLIENT}{place}, or "
        "on one of its nodes the port that `ray start --head` printed, 6379 by default"
    )


def _no_node_advice(place: Place, nodes: Iterable[str]) -> str:
    addresses = sorted(set(nodes))
    shown = ", ".join(addresses[:3]) + (", ..." if len(addresses) > 3 else "")
    return (
        f"{place} answers, but this machine is no node of that Ray cluster"
        f"{f' (its nodes: {shown})' if shown else ''}; only its nodes can join by this address.\n"
        f"Cure: use --ray-address ray://{place.host}:{CLIENT_PORT}, or run the command on a node, or make "
        f"this machine one that does no work: ray start --address={place} --num-cpus=0"
    )
