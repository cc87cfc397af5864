from __future__ import annotations

import threading

import pytest
import torch

from maskmill.pipeline.machine.torch_threads import map_jobs, one_thread


def test_each_job_has_one_torch_thread_and_the_caller_keeps_its_own() -> None:
    own = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = map_jobs(lambda job: (job, torch.get_num_threads()), range(5), 3)
        assert seen == [(job, 1) for job in range(5)]
        assert torch.get_num_threads() == 3
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(own)


def test_one_thread_or_one_job_stays_with_the_caller() -> None:
    here = threading.current_thread()
    assert map_jobs(lambda _: threading.current_thread(), range(3), 1) == [here] * 3
    assert map_jobs(lambda _: threading.current_thread(), range(1), 4) == [here]
    assert map_jobs(lambda job: job, [], 4) == []


@pytest.mark.parametrize("inference", [True, False])
def test_jobs_share_the_callers_inference_mode(inference: bool) -> None:
    with torch.inference_mode(inference):
        modes = map_jobs(lambda _: (torch.is_inference_mode_enabled(), torch.is_grad_enabled()), range(4), 2)
    assert modes == [(inference, False)] * 4


def test_an_error_in_a_job_reaches_the_caller_and_threads_stay() -> None:
    own = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        map_jobs(lambda job: 1 // job, [1, 0, 2], 2)
    assert torch.get_num_threads() == own


def test_small_layers_on_the_calling_thread_alone() -> None:
    own = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError), one_thread():
            _ = 1 // 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(own)
