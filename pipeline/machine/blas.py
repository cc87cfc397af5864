"""A matrix product for compiled kernels: scipy's BLAS, called from machine code and without the GIL.

torch has products of its own, but each is a call from Python; a kernel that works through blocks which stay
in cache needs thousands of small ones. scipy hands out the address of its BLAS's `sgemm` (OpenBLAS in its
wheels, which has kernels for small products); here it gets a name that numba's machine code, cached or new,
is linked to. Ask `available` before a kernel that calls `sgemm` is compiled or loaded.

A BLAS that starts threads for a product would wait for itself where several kernels run side by side:
`one_blas_thread` keeps it to the calling thread.

What it does not know: another BLAS than OpenBLAS, whose threads stay as they are; machines without scipy,
where nothing is available.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llvmlite import binding
from numba import types as numba_types
from numba.extending import get_cython_function_address

_log = logging.getLogger(__name__)

_NAME = "maskmill_sgemm"

_types: Any = numba_types

_TEXT, _INTS, _FLOATS = (_types.CPointer(kind) for kind in (_types.uint8, _types.int32, _types.float32))

sgemm: Any = _types.ExternalFunction(
    _NAME,
    _types.void(
        *(_TEXT, _TEXT, _INTS, _INTS, _INTS, _FLOATS, _FLOATS, _INTS, _FLOATS, _INTS, _FLOATS, _FLOATS, _INTS)
    ),
)
"""BLAS's `sgemm` with its own arguments, pointers all: letters for transposed or not, m, n, k, alpha, A, lda,
B, ldb, beta, C, ldc; matrices column by column."""


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether kernels may call `sgemm` here: gives it its name in this process, where scipy is installed."""
    if find_spec("scipy") is None:
        _log.info("scipy is not installed: the mask head takes torch's operations one by one")
        return False
    binding.add_symbol(_NAME, get_cython_function_address("scipy.linalg.cython_blas", "sgemm"))
    return True


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, scipy's BLAS stays on the calling thread; a setting of the process, set back at the end."""
    library = _openblas()
    if library is None or (own := library.scipy_openblas_get_num_threads()) == 1:
        yield
        return
    library.scipy_openblas_set_num_threads(1)
    try:
        yield
    finally:
        library.scipy_openblas_set_num_threads(own)


@lru_cache(maxsize=1)
def _openblas() -> Any | None:
    """The OpenBLAS of scipy's wheel, which is loaded already; None where scipy has another."""
    if find_spec("scipy") is None:
        return None
    import scipy

    for path in sorted((Path(scipy.__file__).parents[1] / "scipy.libs").glob("libscipy_openblas*")):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "scipy_openblas_set_num_threads"):
            return library
    return None
