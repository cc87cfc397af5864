"""A process in which Triton kernels run on its interpreter: they must be imported with it switched on."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed: its kernels are not used either")

Interpreted = Callable[..., Any]


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Interpreted]:
    """Runs a module's function in that process: `interpreted(function, *arguments)`."""
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(os.getpid).result()
            if before is None:
                del os.environ["TRITON_INTERPRET"]
            yield lambda function, *arguments: pool.submit(function, *arguments).result()
    finally:
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before
        else:
            os.environ.pop("TRITON_INTERPRET", None)
