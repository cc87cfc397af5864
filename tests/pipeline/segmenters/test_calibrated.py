"""The curve behind predicted IoU: identity at first, what its knots say, rising everywhere, precise."""

from __future__ import annotations

import pytest
import torch

from maskmill.pipeline.segmenters.calibrated import LEAST_SLOPE, CalibratedHead


def _head(knots: int = 5) -> CalibratedHead:
    torch.manual_seed(0)
    return CalibratedHead(8, 16, 4, 3, knots)


def test_a_fresh_head_says_what_it_thinks() -> None:
    head, token = _head(), torch.randn(20, 8)
    inside = head.raw(token).clamp(0, 1)
    torch.testing.assert_close(head.corrected(inside), inside)


def test_the_curve_goes_through_its_knots_and_rises_between_and_beyond() -> None:
    head = _head(3)
    head.set_curve(torch.tensor([0.2, 0.6, 1.0]), torch.tensor([0.1, 0.1, 0.8]))
    said = torch.tensor([-1.0, 0.2, 0.4, 0.6, 0.8, 1.0, 3.0])
    true = head.corrected(said)
    level = 0.1 + LEAST_SLOPE * 0.4
    slope = LEAST_SLOPE
    wanted = [0.1 - 1.2 * slope, 0.1, 0.1 + 0.2 * slope, level, (level + 0.8) / 2, 0.8, 0.8 + 2 * slope]
    torch.testing.assert_close(true, torch.tensor(wanted), atol=1e-3, rtol=0)
    assert (true.diff() > 0).all()


def test_the_curve_changes_no_order() -> None:
    head, raw = _head(), torch.randn(500, 4)
    head.set_curve(torch.linspace(0, 1, 5), torch.tensor([0.1, 0.1, 0.3, 0.3, 0.9]))
    rising = head.corrected(raw.flatten().sort().values)
    assert (rising.diff() > -1e-6).all()
    assert rising[-1] - rising[0] > 0.7


def test_gradients_pass_through_the_curve() -> None:
    head, token = _head(), torch.randn(20, 8)
    head(token).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_knots_keep_their_precision_in_bfloat16() -> None:
    head = _head(3)
    said = torch.tensor([0.5, 0.5005, 0.501])
    head.set_curve(said, torch.tensor([0.2, 0.5, 0.7]))
    head.to(torch.bfloat16)
    assert head.layers[0].weight.dtype == torch.bfloat16
    assert torch.equal(head.said_K, said)
    assert head(torch.randn(3, 8, dtype=torch.bfloat16)).isfinite().all()


def test_curves_that_are_none_are_named() -> None:
    head = _head(3)
    with pytest.raises(ValueError, match="2 and 3 knots: give 3"):
        head.set_curve(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match="must rise"):
        head.set_curve(torch.tensor([0.0, 0.5, 0.5]), torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match="must not fall"):
        head.set_curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.6, 0.5]))
