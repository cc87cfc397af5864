"""The averaged weights of a training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskmill.pipeline.train.tune import Average


def layer() -> nn.Linear:
    found = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(found.weight)
    return found


def test_an_average_begins_as_the_model_and_moves_slower_than_it() -> None:
    model = layer()
    average = Average(model, 0.75)
    wanted = 0.0
    for step in range(1, 60):
        nn.init.constant_(model.weight, float(step))
        average.follow(step)
        stays = min(0.75, (1 + step) / (10 + step))
        wanted = stays * wanted + (1 - stays) * step
    assert average.weights["weight"].item() == pytest.approx(wanted, rel=1e-5)
    assert model.weight.item() == 59 > wanted
    average.put()
    assert model.weight.item() == pytest.approx(wanted, rel=1e-5)


def test_what_does_not_learn_is_no_part_of_it() -> None:
    model = layer().requires_grad_(False)
    average = Average(model, 0.5)
    nn.init.ones_(model.weight)
    average.follow(1)
    average.put()
    assert not average.weights and torch.equal(model.weight, torch.ones(1, 1))
