"""How captioners decode: beams and nucleus sampling are transformers' own, the chance is from our generators.

A draw is made by Gumbel noise from a generator per text: the largest of log probability plus noise is a draw
from the nucleus. So a text depends on its seed and image alone, not on what it shares a batch with.

Shape suffixes: N rows (texts in the making), V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from maskmill.pipeline.machine.devices import choose_device

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import CaptionSettings
    from maskmill.pipeline.words.caption import Subject


class Loaded:
    """A captioner's parts: its model on the settings' device, what prepares its inputs, how to decode.

    Raises:
        ValueError: a device that this machine lacks.
    """

    def __init__(self, model: Any, processor: Any, settings: CaptionSettings) -> None:
        self._device = choose_device(settings.device)
        self._model = model.to(self._device)
        self._processor = processor
        self._settings = settings


class GumbelNucleus(LogitsProcessor):
    """Leaves one token a row: a draw from the top-p part of its distribution.

    Args:
        top_p: share of probability that is drawn from, in (0, 1].
        generators: one a row, on the CPU; each step takes a vocabulary's worth of noise from it.
    """

    def __init__(self, top_p: float, generators: Sequence[torch.Generator]) -> None:
        self._nucleus = TopPLogitsWarper(top_p)
        self._generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """float[N, V]: 0 for the token that was drawn, -inf elsewhere: sampling can only take it."""
        kept_NV = self._nucleus(input_ids, scores.float())
        uniform_NV = torch.stack(
            [torch.rand(scores.shape[1], generator=generator) for generator in self._generators]
        ).to(kept_NV.device)
        tiny = torch.finfo(torch.float32).tiny
        noisy_NV = kept_NV - torch.log(-torch.log(uniform_NV.clamp(tiny, 1 - 1e-7)))
        drawn_NV = torch.full_like(noisy_NV, -torch.inf)
        return drawn_NV.scatter(1, noisy_NV.argmax(dim=-1, keepdim=True), 0.0)


def decoding(settings: CaptionSettings, subjects: Sequence[Subject]) -> dict[str, Any]:
    """Options of a model's `generate`: `num_candidates` texts a subject, in order, by the settings' strategy.

    Args:
        settings: strategy, lengths, seed.
        subjects: whose texts are made, a row of the batch each.
    """
    options = {
        "min_new_tokens": settings.min_tokens,
        "max_new_tokens": settings.max_tokens,
        "num_return_sequences": settings.num_candidates,
    }
    if settings.strategy == "beam":
        return {**options, "do_sample": False, "num_beams": settings.num_beams}

    generators = [
        seeded(settings.seed, subject.key, number)
        for subject in subjects
        for number in range(settings.num_candidates)
    ]
    whole = {"do_sample": True, "num_beams": 1, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    draws = LogitsProcessorList([GumbelNucleus(settings.top_p, generators)])
    return {**options, **whole, "logits_processor": draws}


def in_turn(texts: Sequence[str], each: int) -> list[tuple[str, ...]]:
    """Texts of all subjects one after the other, as those of each."""
    return [tuple(texts[i : i + each]) for i in range(0, len(texts), each)]


def seeded(seed: int, key: str, number: int) -> torch.Generator:
    """A generator of its own for one text of one subject, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{key}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
