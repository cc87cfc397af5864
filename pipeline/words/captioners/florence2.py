"""Florence-2 as captioner, by transformers' own class and processor.

The model knows tasks instead of prompts: `<CAPTION>`, and two that say more; the settings' prompt names
another than the first. An image is encoded once for all its texts.

It is no detector here: it writes boxes as words, without scores, and thresholds and suppression need those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from maskmill.pipeline.words.captioners.drawing import Loaded, decoding, in_turn
from maskmill.pipeline.words.inputs import prepare

if TYPE_CHECKING:
    from maskmill.pipeline.words.caption import Subject

TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")


def check_task(prompt: str | None) -> None:
    """Raises ValueError for a prompt that names no task of captioning."""
    if prompt is not None and prompt not in TASKS:
        raise ValueError(
            f"captions.prompt={prompt!r}: Florence-2 knows {', '.join(TASKS)}; leave it out or use one"
        )


class Florence2Captioner(Loaded):
    """The captioner role; see `maskmill.pipeline.words.caption.Captioner`.

    Args:
        model, processor: of one checkpoint; the model is taken over.
        settings: the task, how to decode, and on which device.

    Raises:
        ValueError: a device that this machine lacks.
    """

    @torch.inference_mode()
    def captions(self, subjects: Sequence[Subject]) -> list[tuple[str, ...]]:
        """See `Captioner.captions`."""
        if not subjects:
            return []
        images = [subject.pixels_HWC for subject in subjects]
        tasks = [self._settings.prompt or TASKS[0]] * len(subjects)
        inputs = prepare(self._model, self._processor, images, text=tasks)

        tokens = self._model.generate(**inputs, **decoding(self._settings, subjects))
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return in_turn([text.strip() for text in texts], self._settings.num_candidates)
