"""What each node of the connected cluster has installed, asked of the node itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from maskmill.workers.run.nodes import node_addresses

PACKAGES = ("maskmill", "ray", "torch", "torchvision", "numpy", "transformers", "pyarrow", "boto3")


@dataclass(frozen=True)
class NodeVersions:
    """One node.

    Attributes:
        address: of the node.
        versions: package -> version, "" where it lacks; Python's too.
        error: why it didn't answer; "" if it did.
    """

    address: str
    versions: Mapping[str, str]
    error: str = ""


def node_versions(*, timeout_s: float = 60.0) -> list[NodeVersions]:
    """Every live node's versions, by address.

    Args:
        timeout_s: for all nodes together; who is silent until then has that as its error.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look: Any = ray.remote(num_cpus=0, max_retries=0)(_look())
    asked = {
        address: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(
            PACKAGES
        )
        for node_id, address in node_addresses().items()
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
    return [_answer(address, reference) for address, reference in sorted(asked.items())]


def _answer(address: str, reference: Any) -> NodeVersions:
    try:
        return NodeVersions(address, ray.get(reference, timeout=0.1))
    except GetTimeoutError:
        return NodeVersions(address, {}, "it did not answer: is it busy, or behind a firewall?")
    except RayError as exc:
        return NodeVersions(address, {}, str(exc).strip().splitlines()[-1])


def _look() -> Any:
    """A function that travels whole, by value: the node may have no maskmill, or another one."""

    def look(packages: tuple[str, ...]) -> dict[str, str]:
        """Versions of what is installed where it runs."""
        import importlib.metadata
        import platform

        found = {"python": platform.python_version()}
        for name in packages:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = ""
        return found

    return look
