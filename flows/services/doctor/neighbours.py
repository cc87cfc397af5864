"""Of what a run talks to: the Ray cluster it would join, and Prefect's server.

Both are asked as a run asks them, with the same secrets. Nothing is started.
"""

from __future__ import annotations

import os
import urllib.error
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.flows.services import state as up_state
from maskmill.flows.services.doctor.findings import Finding, fine, look, wrong
from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.ray.address import ClusterError, check_joinable, place_of
from maskmill.flows.services.ray.cluster import connected, prepare_environment

if TYPE_CHECKING:
    from maskmill.workers.pool.versions import NodeVersions

MUST_AGREE = ("python", "ray", "maskmill", "torch")


def ray_cluster(address: str | None) -> Iterator[Finding]:
    """The cluster that a run joins: whether it can, as what, and whether its nodes agree.

    Args:
        address: as settings name it; None where a run starts its own.
    """
    if address is None:
        yield fine("ray", "no cluster is named: a run starts one on this machine, and ends it")
        return
    prepare_environment(address)
    try:
        check_joinable(address)
    except ClusterError as exc:
        yield _of_error("ray", exc)
        return
    place = place_of(address)
    how = "as a client: this machine is no node" if place and place.by_client else "as one of its nodes"
    yield fine("ray", f"{address} can be joined, {how}; the token is right")
    try:
        with connected(address):
            from maskmill.workers.pool.versions import node_versions
            from maskmill.workers.run.nodes import node_resources

            nodes, versions = node_resources(), node_versions()
    except ClusterError as exc:
        yield _of_error("ray's nodes", exc)
        return
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    yield _nodes_agree(versions, f"{len(nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs")


def _nodes_agree(versions: Sequence[NodeVersions], says: str) -> Finding:
    own = _own_versions()
    silent = [f"{node.address}: {node.error}" for node in versions if node.error]
    if silent:
        cure = "look at that node: memory, disk, `ray status`, and the head's dashboard"
        return wrong("ray's nodes", f"{says}; {'; '.join(silent[:3])}", cure)
    others = Counter(
        f"{name} {node.versions.get(name) or 'missing'} on {node.address} (here {own[name]})"
        for node in versions
        for name in MUST_AGREE
        if node.versions.get(name) != own[name]
    )
    if others:
        shown = "; ".join(list(others)[:4]) + ("; ..." if len(others) > 4 else "")
        cure = "install the same requirements.lock and maskmill on every node, or use one image for all"
        return wrong("ray's nodes", f"{says}; {shown}", cure)
    shown = ", ".join(f"{name} {own[name]}" for name in MUST_AGREE)
    return fine("ray's nodes", f"{says}, all with {shown}")


def prefect_server() -> Finding:
    """The server that runs are told to: whether it answers, and to our secret."""
    up_state.use_server()
    url, auth = _named_server()
    if url is None:
        return fine("prefect", "no server is named: a run starts its own, and history stays on this machine")
    api = PrefectApi(url, auth)
    try:
        version = api.get("admin/version")
        api.send("flows/filter", {"limit": 1})
    except urllib.error.HTTPError as exc:
        return _refused(url, auth, exc)
    except (OSError, ValueError) as exc:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        cure = "start it (`maskmill up`), correct PREFECT_API_URL, or unset it: a run then starts its own"
        return wrong("prefect", f"no server of Prefect's answers at {url}: {reason}", cure)
    own = _prefect_version()
    if version != own:
        says = f"{url} is Prefect {version}, this client {own}"
        return look("prefect", says, "install one version on both: newer clients need a server as new")
    return fine("prefect", f"{url}, Prefect {version}; the secret is right")


def _refused(url: str, auth: str | None, exc: urllib.error.HTTPError) -> Finding:
    code = exc.code
    exc.close()
    if code in (401, 403):
        lacks = "asks for a secret, and none is set" if auth is None else "refuses the secret that is set"
        cure = (
            "set PREFECT_API_AUTH_STRING=user:password, as its server's PREFECT_SERVER_API_AUTH_STRING says"
        )
        return wrong("prefect", f"{url} {lacks}", cure)
    return wrong(
        "prefect",
        f"{url} answers {code}, which no API of Prefect's does",
        "correct PREFECT_API_URL: it ends in /api",
    )


def _of_error(name: str, exc: ClusterError) -> Finding:
    """Ray's errors say the cure after the word."""
    says, _, cure = str(exc).partition("Cure: ")
    return wrong(name, says.strip(), cure.strip() or "see docs/cluster.md")


def _named_server() -> tuple[str | None, str | None]:
    """URL and secret as Prefect's own client takes them: the environment's, else the profile's."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url, os.environ.get("PREFECT_API_AUTH_STRING")
    from maskmill.flows.services.prefect.server import quiet_environment

    quiet_environment()
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    secret: Any = PREFECT_API_AUTH_STRING.value()
    text = secret.get_secret_value() if hasattr(secret, "get_secret_value") else secret
    return PREFECT_API_URL.value(), text


def _prefect_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("prefect")


def _own_versions() -> dict[str, str]:
    import importlib.metadata
    import platform

    found = {name: importlib.metadata.version(name) for name in MUST_AGREE if name != "python"}
    return {"python": platform.python_version(), **found}
