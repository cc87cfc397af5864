"""BLIP as captioner and as filter, by transformers' classes; images are encoded once for all their texts.

The captioner goes the way of `BlipForConditionalGeneration.generate`: beams are transformers' own; nucleus
sampling is transformers' top-p, drawn by Gumbel noise from a generator per text (the largest of log
probability plus noise is a draw from them), so that a text depends on its seed and image alone, not on what
it shares a batch with. The filter is `BlipForImageTextRetrieval`'s matching head.

Shape suffixes: B images, T texts, N rows (texts, or texts in the making), V vocabulary, L tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    LogitsProcessor,
    LogitsProcessorList,
    TopPLogitsWarper,
)

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.settings.families import model_types_of
from maskmill.pipeline.weights import pretrained
from maskmill.pipeline.words.caption import Subject

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import CaptionSettings


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
        """float[N, V]: scores in the nucleus with noise, -inf elsewhere; greedy decoding takes the draw."""
        kept_NV = self._nucleus(input_ids, scores.float())
        uniform_NV = torch.stack(
            [torch.rand(scores.shape[1], generator=generator) for generator in self._generators]
        ).to(kept_NV.device)
        tiny = torch.finfo(torch.float32).tiny
        noisy_NV: torch.Tensor = kept_NV - torch.log(-torch.log(uniform_NV.clamp(tiny, 1 - 1e-7)))
        return noisy_NV


class BlipCaptioner:
    """The captioner role; see `maskmill.pipeline.words.caption.Captioner`.

    Args:
        model, processor: of one checkpoint; the model is taken over.
        settings: how to decode, and on which device.

    Raises:
        ValueError: a device that this machine lacks.
    """

    def __init__(
        self, model: BlipForConditionalGeneration, processor: Any, settings: CaptionSettings
    ) -> None:
        self._device = choose_device(settings.device)
        network: Any = model
        self._model = network.to(self._device)
        self._processor = processor
        self._settings = settings

    @torch.inference_mode()
    def captions(self, subjects: Sequence[Subject]) -> list[tuple[str, ...]]:
        """See `Captioner.captions`."""
        if not subjects:
            return []
        pixels = self._pixels([subject.pixels_HWC for subject in subjects])
        image_embeds = self._model.vision_model(pixel_values=pixels)[0]
        rows = self._nucleus(image_embeds, subjects)
        if rows is None:
            rows = self._beams(image_embeds)
        texts = self._processor.batch_decode(rows, skip_special_tokens=True)
        each = self._settings.num_candidates
        return [tuple(texts[i : i + each]) for i in range(0, len(texts), each)]

    def _pixels(self, images: Sequence[Pixels]) -> torch.Tensor:
        return prepared_pixels(self._processor, images).to(self._device, self._model.dtype)

    def _nucleus(self, image_embeds: torch.Tensor, subjects: Sequence[Subject]) -> torch.Tensor | None:
        settings = self._settings
        if settings.strategy != "nucleus":
            return None
        generators = [
            seeded(settings.seed, subject.key, number)
            for subject in subjects
            for number in range(settings.num_candidates)
        ]
        return self._generate(
            image_embeds.repeat_interleave(settings.num_candidates, dim=0),
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([GumbelNucleus(settings.top_p, generators)]),
        )

    def _beams(self, image_embeds: torch.Tensor) -> torch.Tensor:
        settings = self._settings
        return self._generate(
            image_embeds,
            do_sample=False,
            num_beams=settings.num_beams,
            num_return_sequences=settings.num_candidates,
        )

    def _generate(self, image_embeds: torch.Tensor, **options: Any) -> torch.Tensor:
        """int64[N, L] tokens, prompt included; what the model's own `generate` does after its encoder."""
        text = self._model.config.text_config
        prompt = self._prompt_ids(len(image_embeds))
        tokens: torch.Tensor = self._model.text_decoder.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            encoder_hidden_states=image_embeds,
            encoder_attention_mask=torch.ones(
                image_embeds.shape[:-1], dtype=torch.long, device=image_embeds.device
            ),
            min_new_tokens=self._settings.min_tokens,
            max_new_tokens=self._settings.max_tokens,
            **options,
        )
        return tokens

    def _prompt_ids(self, num_rows: int) -> torch.Tensor:
        """int64[N, L]: the begin token, then the prompt's; its own begin and end tokens are left out."""
        ids = [self._model.config.text_config.bos_token_id]
        if self._settings.prompt:
            ids += self._processor.tokenizer(self._settings.prompt)["input_ids"][1:-1]
        return torch.tensor([ids], device=self._device).repeat(num_rows, 1)


class BlipFilter:
    """The filter role; see `maskmill.pipeline.words.caption.TextFilter`.

    Args:
        model, processor: of one checkpoint; the model is taken over.
        device: as settings name it.

    Raises:
        ValueError: a device that this machine lacks.
    """

    def __init__(self, model: BlipForImageTextRetrieval, processor: Any, *, device: str = "auto") -> None:
        self._device = choose_device(device)
        network: Any = model
        self._model = network.to(self._device)
        self._processor = processor

    @torch.inference_mode()
    def scores(self, images: Sequence[Pixels], texts: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """See `TextFilter.scores`; a text longer than the model reads counts by its beginning."""
        counts = [len(image_texts) for image_texts in texts]
        if not sum(counts):
            return [() for _ in images]

        # Each image once, for all its texts
        pixels = prepared_pixels(self._processor, images).to(self._device, self._model.dtype)
        image_embeds = self._model.vision_model(pixel_values=pixels)[0]
        embeds_T = image_embeds.repeat_interleave(torch.tensor(counts, device=self._device), dim=0)

        tokens = self._processor.tokenizer(
            [text for image_texts in texts for text in image_texts],
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._device)

        hidden = self._model.text_encoder(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            encoder_hidden_states=embeds_T,
            encoder_attention_mask=torch.ones(embeds_T.shape[:-1], dtype=torch.long, device=self._device),
        ).last_hidden_state

        matching_T2 = self._model.itm_head(hidden[:, 0, :]).float().softmax(dim=-1)
        scores = iter(matching_T2[:, 1].tolist())
        return [tuple(next(scores) for _ in range(count)) for count in counts]


def load_blip(settings: CaptionSettings) -> tuple[BlipCaptioner, BlipFilter | None]:
    """The captioner, and the filter where the settings name one.

    Raises:
        WeightsError: weights that are missing, damaged or another model's.
        ValueError: a device that this machine lacks.
    """
    assert settings.model is not None, "captions that are off load nothing"
    found = pretrained.find(settings.model, role="captioner", model_types=model_types_of("captioner"))
    made = pretrained.load(BlipForConditionalGeneration, AutoProcessor, found, dtype=settings.dtype)
    captioner = BlipCaptioner(*made, settings)
    if settings.filter is None:
        return captioner, None

    found = pretrained.find(settings.filter, role="filter", model_types=model_types_of("filter"))
    judge = pretrained.load(BlipForImageTextRetrieval, AutoProcessor, found, dtype=settings.dtype)
    return captioner, BlipFilter(*judge, device=settings.device)


def prepared_pixels(processor: Any, images: Sequence[Pixels]) -> torch.Tensor:
    """float32[B, 3, S, S] by the checkpoint's own image processor."""
    pictures = [Image.fromarray(image) for image in images]
    pixels: torch.Tensor = processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    return pixels


def seeded(seed: int, key: str, number: int) -> torch.Generator:
    """A generator of its own for one text of one subject, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{key}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
