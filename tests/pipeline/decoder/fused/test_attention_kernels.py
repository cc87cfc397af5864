"""The compiled loops one by one, against numpy in float64."""

from __future__ import annotations

import numpy as np

from maskmill.pipeline.decoder.fused import attention_kernels as kernels


def test_exponential() -> None:
    """Within a few roundings down to where float32 ends; what isn't a number stays so."""
    x = np.concatenate([np.linspace(-87, 0, 501), np.linspace(-1, 0, 101)]).astype(np.float32)
    ours = np.array([kernels._exponential(value) for value in x])
    assert np.abs(ours / np.exp(x.astype(np.float64)) - 1).max() < 4e-7
    assert 0 <= kernels._exponential(np.float32(-3e38)) < 1e-37
    assert np.isnan(kernels._exponential(np.float32(np.nan)))


def test_largest_wherever_it_is() -> None:
    for place in (0, 1, 63, 64, 127):
        values = np.full(128, -5, np.float32)
        values[place] = -1
        assert kernels._largest(values, np.empty(128, np.float32)) == -1


def test_softmax_over_tokens() -> None:
    scores = np.random.default_rng(0).normal(0, 20, (3 * 4, 128)).astype(np.float32)
    by_head = np.exp(scores.reshape(3, 4, 128).astype(np.float64))
    wanted = (by_head / by_head.sum(axis=1, keepdims=True)).reshape(12, 128)
    kernels._softmax_over_tokens(scores, 3)
    assert np.abs(scores - wanted).max() < 1e-6
