"""Three pictures, and draws that are ours in transformers' own sampling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def images() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    draw = np.random.default_rng(0)
    return [
        np.clip(np.array(colour) + draw.integers(-40, 40, (20 + 10 * i, 50, 3)), 0, 255).astype(np.uint8)
        for i, colour in enumerate(((250, 20, 20), (20, 20, 250), (128, 128, 128)))
    ]


@pytest.fixture
def gumbel_draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Generator]]:
    """torch.multinomial draws by Gumbel noise of these generators, one a row; without any it is itself."""
    generators: list[torch.Generator] = []
    real = torch.multinomial

    def draw(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        if not generators:
            return real(probabilities, num_samples)
        noise = torch.stack([torch.rand(probabilities.shape[1], generator=own) for own in generators])
        tiny = torch.finfo(torch.float32).tiny
        noisy = probabilities.log() - torch.log(-torch.log(noise.clamp(tiny, 1 - 1e-7)))
        return noisy.argmax(dim=-1, keepdim=True)

    monkeypatch.setattr(torch, "multinomial", draw)
    yield generators
