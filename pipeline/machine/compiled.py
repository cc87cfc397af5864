"""Compiled kernels: how they are cached, and how work is spread over threads.

A kernel releases the GIL, so a plain thread pool of a bounded size runs several at once. numba keeps the
machine code beside the module (or, where the package cannot be written, in the user's cache folder; where
neither can, it compiles anew in each process). numba notices a change of the kernel's own file only: a kernel
never calls a kernel of another file.

The compiler runs at the first call, a second or two per kernel, not at import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar, cast

import numba

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Job = TypeVar("Job")


def kernel(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`numba.njit` without the GIL and with the cache where there is a place for it."""
    try:
        compiled = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        compiled = numba.njit(nogil=True)(function)
    return cast(Callable[Arguments, Result], compiled)


def arithmetic_kernel(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """As `kernel`, for loops over floats: a product and its sum round once, a division by zero is an inf.

    Without both the compiler does not use the machine's vectors. What isn't a number stays so.
    """
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # as above
        compiled = numba.njit(**options)(function)
    return cast(Callable[Arguments, Result], compiled)


def map_in_threads(
    function: Callable[[Job], Result], jobs: Sequence[Job], threads: int | None = None
) -> list[Result]:
    """`[function(job) for job in jobs]` over at most `threads` threads.

    None is numba's count: NUMBA_NUM_THREADS, or the processors this process may use.

    Raises:
        ValueError: threads is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; give 1 or more, or None for all of the machine's")
    config: Any = numba.config
    count = min(threads or int(config.NUMBA_NUM_THREADS), len(jobs))
    if count <= 1:
        return [function(job) for job in jobs]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, jobs))
