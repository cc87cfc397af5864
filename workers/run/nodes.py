"""What the connected cluster's live nodes have."""

from __future__ import annotations

from typing import Any

import ray

from maskmill.workers.run.spec import Resources


def live_nodes() -> set[str]:
    """Ids of the nodes that ray believes alive; it takes some 15 s to notice a loss."""
    return {str(node["NodeID"]) for node in _nodes()}


def node_addresses() -> dict[str, str]:
    """Ids of the live nodes to their addresses."""
    return {str(node["NodeID"]): str(node["NodeManagerAddress"]) for node in _nodes()}


def node_resources() -> list[dict[str, float]]:
    """What each live node has: ray's names (CPU, GPU, memory in bytes) to amounts."""
    return [dict(node["Resources"]) for node in _nodes()]


def room_for(resources: Resources) -> int:
    """How many workers the live nodes hold together, each on one node, whatever else runs there."""
    needs = [need for need in (("CPU", resources.num_cpus), ("GPU", resources.num_gpus)) if need[1]]
    return sum(_room_on(node["Resources"], needs) for node in _nodes())


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _room_on(node: dict[str, float], needs: list[tuple[str, float]]) -> int:
    return min(_parts(node.get(name, 0.0), need, whole=name == "GPU") for name, need in needs)


def _parts(total: float, need: float, *, whole: bool) -> int:
    """How often `need` fits; a part of a GPU is a part of one GPU, never of two."""
    if whole and need < 1:
        return int(total) * int(1 / need + 1e-9)
    return int(total / need + 1e-9)
