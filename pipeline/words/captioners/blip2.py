"""BLIP-2 as captioner, by transformers' own class and processor, over OPT or T5.

The language model goes on from the prompt, as `Blip2ForConditionalGeneration.generate` has it; an image is
encoded once for all its texts. Models with an encoder for the text (T5) answer a prompt and don't repeat it:
it is put before their texts, so that they begin with it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from maskmill.pipeline.words.captioners.drawing import Loaded, decoding, in_turn
from maskmill.pipeline.words.inputs import prepare

if TYPE_CHECKING:
    from maskmill.pipeline.words.caption import Subject


class Blip2Captioner(Loaded):
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
        prompt = self._settings.prompt
        images = [subject.pixels_HWC for subject in subjects]
        prompts = None if prompt is None else [prompt] * len(subjects)
        inputs = prepare(self._model, self._processor, images, text=prompts)

        tokens = self._model.generate(**inputs, **decoding(self._settings, subjects))
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        if prompt is not None and self._model.language_model.config.is_encoder_decoder:
            texts = [f"{prompt} {text}" for text in texts]
        return in_turn(texts, self._settings.num_candidates)
