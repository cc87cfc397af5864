"""Independent jobs side by side, each of them single-threaded in torch.

An operation of a fraction of a millisecond is hardly faster on two threads: start and join cost as much
as it saves. Whole jobs on a thread each share nothing and wait for nobody. torch releases the GIL within its
operations.

What it does not do: choose how many threads; the caller's torch threads are the bound.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch's operations run on the calling thread alone: for small layers one after another."""
    own = torch.get_num_threads()
    if own == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(own)


def map_jobs(function: Callable[[Job], Result], jobs: Sequence[Job], threads: int) -> list[Result]:
    """`[function(job) for job in jobs]`, on at most `threads` threads with one torch thread each.

    The jobs run without gradients, in the caller's inference mode. A single job keeps the caller's thread and
    torch's threads.
    """
    if threads <= 1 or len(jobs) <= 1:
        return [function(job) for job in jobs]
    inference = torch.is_inference_mode_enabled()

    def run(job: Job) -> Result:
        """In the caller's modes, which threads do not inherit."""
        with torch.inference_mode(inference), torch.no_grad():
            return function(job)

    own = torch.get_num_threads()
    try:
        return list(_pool(threads, os.getpid()).map(run, jobs))
    finally:
        torch.set_num_threads(own)  # what the pool's threads set would hold for threads to come


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept for the next call: new threads start with cold memory, which costs more than a small job.

    `process` keeps a forked child from using its parent's, whose threads it does not have.
    """
    return ThreadPoolExecutor(threads, "torch", initializer=torch.set_num_threads, initargs=(1,))
