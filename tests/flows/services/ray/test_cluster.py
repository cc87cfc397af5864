"""How many workers fit on a cluster, and which addresses are this machine's own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import pytest

from maskmill.flows.config import load_config
from maskmill.flows.services.ray import cluster
from maskmill.flows.services.ray.cluster import ClusterError, Crew, _is_loopback, plan_crew
from maskmill.workers.run.spec import Resources

MEMORY = 64e9


def crew(*sets: str, **available: float) -> Crew:
    return crew_on({"memory": MEMORY, **available}, *sets)


def crew_on(node: dict[str, float], *sets: str, others: Sequence[dict[str, float]] = ()) -> Crew:
    return plan_crew(load_config(sets=sets), [node, *others])


def test_on_cpus_small_models_get_a_worker_a_core_and_large_ones_what_memory_holds() -> None:
    assert crew(CPU=2) == Crew(2, Resources(num_cpus=1))
    assert crew("segmenter.model=vit_h", "segmenter.weights=x", CPU=16) == Crew(6, Resources(num_cpus=2))
    assert crew(CPU=16, memory=3e9).num_workers == 3
    assert crew(CPU=4, memory=1e8) == Crew(1, Resources(num_cpus=4))


def test_on_gpus_a_worker_each_with_its_share_of_cpus() -> None:
    assert crew(CPU=32, GPU=8) == Crew(8, Resources(num_cpus=4, num_gpus=1))
    assert crew("run.workers=16", CPU=32, GPU=8) == Crew(16, Resources(num_cpus=2, num_gpus=0.5))
    assert crew("segmenter.device=cpu", CPU=32, GPU=8).resources.num_gpus == 0


def test_the_number_asked_for_is_kept_and_shares_never_exceed_the_whole() -> None:
    asked = crew("run.workers=3", CPU=2)
    assert asked == Crew(3, Resources(num_cpus=0.66))
    assert asked.num_workers * asked.resources.num_cpus <= 2


def test_gpu_workers_share_the_cpus_of_their_own_nodes() -> None:
    gpu_node, cpu_node = {"CPU": 8, "GPU": 8, "memory": MEMORY}, {"CPU": 64, "memory": MEMORY}
    assert crew_on(gpu_node, others=[cpu_node]) == Crew(8, Resources(num_cpus=1, num_gpus=1))
    assert crew_on({"GPU": 1, "memory": MEMORY}, others=[cpu_node]).resources.num_cpus == 0


def test_a_part_of_a_gpu_is_a_part_of_one() -> None:
    three_on_two = crew("run.workers=3", CPU=32, GPU=2)
    assert three_on_two == Crew(3, Resources(num_cpus=4, num_gpus=0.5))
    assert crew("run.workers=3", CPU=32, GPU=1).resources.num_gpus == 0.33


def test_shares_are_of_single_nodes() -> None:
    small = {"CPU": 3, "memory": MEMORY}
    assert crew_on(small, "run.workers=4", others=[small]) == Crew(4, Resources(num_cpus=1))
    assert crew_on(small, others=[{"CPU": 0, "memory": MEMORY}]) == Crew(3, Resources(num_cpus=1))


def test_an_autoscaler_is_asked_for_more_workers_of_the_usual_size() -> None:
    sets = ("run.autoscale=true", "run.workers=64")
    assert crew(*sets, CPU=4) == Crew(64, Resources(num_cpus=1))
    assert crew(*sets, CPU=8, GPU=1) == Crew(64, Resources(num_cpus=4, num_gpus=1))
    assert crew(*sets, "segmenter.device=cuda", CPU=8) == Crew(64, Resources(num_cpus=4, num_gpus=1))


def test_a_cluster_that_lacks_the_device_is_refused_with_a_cure() -> None:
    with pytest.raises(ClusterError, match=r"no GPU.*segmenter.device=auto"):
        crew("segmenter.device=cuda", CPU=8)
    with pytest.raises(ClusterError, match="no CPU"):
        crew(CPU=0)


@pytest.mark.parametrize(
    ("address", "own"),
    [
        (None, True),
        ("127.0.0.1:6379", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("10.0.0.7:6379", False),
        ("ray://head:10001", False),
        ("head:6379", False),
    ],
)
def test_only_loopback_addresses_are_this_machine(address: str | None, own: bool) -> None:
    assert _is_loopback(address) is own


@pytest.mark.parametrize(
    ("failures", "error", "calls"),
    [(2, ConnectionAbortedError, 3), (3, ConnectionAbortedError, 3), (1, ConnectionError, 1)],
)
def test_a_head_that_is_busy_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, failures: int, error: type[Exception], calls: int
) -> None:
    """By ray://, where each driver gets a process of the head's, which has 30 s to start."""
    import ray

    asked: list[str] = []

    def init(*, address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) <= failures:
            raise error("Initialization failure from server:")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(cluster, "check_joinable", lambda address: None)
    monkeypatch.setattr(cluster, "prepare_environment", lambda address: None)
    with nullcontext() if failures < calls else pytest.raises(ClusterError, match="no Ray cluster answers"):
        cluster.connect("ray://head:10001")
    assert asked == ["ray://head:10001"] * calls
