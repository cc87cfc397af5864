"""BLIP as captioner and as filter, by transformers' classes; images are encoded once for all their texts.

The captioner goes the way of `BlipForConditionalGeneration.generate`, with draws of our own (drawing.py). The
filter is `BlipForImageTextRetrieval`'s matching head.

Shape suffixes: B images, T texts, N rows of texts in the making, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import BlipForImageTextRetrieval

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.words.caption import Subject
from maskmill.pipeline.words.captioners.drawing import Loaded, decoding, in_turn

if TYPE_CHECKING:
    pass


class BlipCaptioner(Loaded):
    """The captioner role; see `maskmill.pipeline.words.caption.Captioner`.

    Args:
        model, processor: of one checkpoint; the model is taken over.
        settings: how to decode, and on which device.

    Raises:
        ValueError: a device that this machine lacks.
    """

    @torch.inference_mode()
    def captions(self, subjects: Sequence[Subject]) -> list[tuple[str, ...]]:
        """See `Captioner.captions`."""
        if not subjects:
            return []
        pixels = self._pixels([subject.pixels_HWC for subject in subjects])
        image_embeds = self._model.vision_model(pixel_values=pixels)[0]
        rows = self._generate(image_embeds, **decoding(self._settings, subjects))
        texts = self._processor.batch_decode(rows, skip_special_tokens=True)
        return in_turn(texts, self._settings.num_candidates)

    def _pixels(self, images: Sequence[Pixels]) -> torch.Tensor:
        return prepared_pixels(self._processor, images).to(self._device, self._model.dtype)

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


def prepared_pixels(processor: Any, images: Sequence[Pixels]) -> torch.Tensor:
    """float32[B, 3, S, S] by the checkpoint's own image processor."""
    pictures = [Image.fromarray(image) for image in images]
    pixels: torch.Tensor = processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    return pixels
