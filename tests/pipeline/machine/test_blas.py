"""scipy's product from compiled code, and its threads kept to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskmill.pipeline.decoder.forms import SAM
from maskmill.pipeline.decoder.fused import head as fused_head
from maskmill.pipeline.decoder.fused import head_kernels
from maskmill.pipeline.decoder.fused.head import FusedHead
from maskmill.pipeline.machine import blas
from tests.pipeline.decoder.test_decoder import Model


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 9), (64, 99, 300), (300, 200, 700)])
def test_product_of_columns(shape: tuple[int, int, int]) -> None:
    assert blas.available()
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    left = rng.normal(size=(rows, inner)).astype(np.float32)
    right = rng.normal(size=(inner, columns)).astype(np.float32)
    start = columns // 3
    out = np.full((rows, columns), np.nan, np.float32)
    head_kernels._product(left, right, start, columns, 0.0, out)
    assert np.allclose(out[:, : columns - start], left @ right[:, start:], atol=1e-3)
    assert np.isnan(out[:, columns - start :]).all()


def test_without_scipy_the_head_goes_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's machine may have torch and numba alone."""
    monkeypatch.setattr(blas, "find_spec", lambda name: None)
    blas.available.cache_clear()
    blas._openblas.cache_clear()
    try:
        assert FusedHead.of(Model().mask_decoder, torch.zeros(64), SAM, torch.float32) is None
        fused_head.warm_up()
        with blas.one_blas_thread():
            pass
    finally:
        blas.available.cache_clear()
        blas._openblas.cache_clear()


def test_threads_are_set_back() -> None:
    library = blas._openblas()
    if library is None:
        pytest.skip("scipy has another BLAS here")
    own = library.scipy_openblas_get_num_threads()
    try:
        library.scipy_openblas_set_num_threads(2)
        with pytest.raises(KeyError), blas.one_blas_thread():
            assert library.scipy_openblas_get_num_threads() == 1
            raise KeyError
        assert library.scipy_openblas_get_num_threads() == 2
    finally:
        library.scipy_openblas_set_num_threads(own)
