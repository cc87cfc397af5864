"""How many workers a node holds."""

from __future__ import annotations

import pytest

from maskmill.workers.run.nodes import _room_on


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "room"),
    [
        ({"CPU": 4.0}, 1.0, 0.0, 4),
        ({"CPU": 4.0}, 0.66, 0.0, 6),
        ({"CPU": 8.0, "GPU": 2.0}, 4.0, 1.0, 2),
        ({"CPU": 8.0, "GPU": 4.0}, 4.0, 1.0, 2),
        ({"CPU": 8.0, "GPU": 2.0}, 0.0, 0.4, 4),
        ({"CPU": 8.0, "GPU": 1.0}, 0.0, 0.33, 3),
        ({"CPU": 64.0}, 1.0, 1.0, 0),
    ],
)
def test_a_worker_fits_where_all_it_needs_is_on_one_node_and_one_gpu(
    node: dict[str, float], cpus: float, gpus: float, room: int
) -> None:
    needs = [need for need in (("CPU", cpus), ("GPU", gpus)) if need[1]]
    assert _room_on(node, needs) == room
