from __future__ import annotations

import threading

import pytest

from maskmill.pipeline.machine.compiled import kernel, map_in_threads


def test_a_kernel_without_a_place_for_its_cache_still_compiles() -> None:
    namespace: dict[str, object] = {}
    exec("def double(x):\n    return 2 * x\n", namespace)  # a source that numba cannot cache: it has no file
    double = kernel(namespace["double"])  # type: ignore[arg-type]
    assert double(21) == 42


def test_results_keep_the_order_of_the_jobs() -> None:
    assert map_in_threads(lambda x: x * x, range(20), threads=3) == [x * x for x in range(20)]
    assert map_in_threads(lambda x: x, [], threads=3) == []


def test_threads_bound_what_runs_at_once() -> None:
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2, timeout=5)

    def job(index: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if index < 2:
            both.wait()  # two jobs do run at once
        with lock:
            running -= 1

    map_in_threads(job, range(12), threads=2)
    assert most == 2


def test_an_error_in_a_job_reaches_the_caller() -> None:
    def job(index: int) -> int:
        raise KeyError(index)

    with pytest.raises(KeyError):
        map_in_threads(job, range(4), threads=2)


def test_no_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        map_in_threads(str, [1], threads=0)
