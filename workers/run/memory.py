"""Host memory that one worker of a run needs: its segmenter and its models of words.

One model is sized by pipeline/settings/memory.py.

It doesn't know: batches, half precision, what a GPU holds.
"""

from __future__ import annotations

from maskmill.pipeline.settings import CaptionSettings, LabelSettings, NameSettings, SegmenterSettings
from maskmill.pipeline.settings.memory import WORD_MODEL_BYTES, segmenter_bytes
from maskmill.workers.run.columns import Sections


def worker_bytes(settings: Sections) -> int:
    """What one worker of a run needs of its node's memory, in bytes.

    Args:
        settings: of the run.
    """
    captions = settings.of(CaptionSettings)
    models = (
        captions.model,
        captions.filter if captions.model is not None else None,
        settings.of(LabelSettings).model,
        settings.of(NameSettings).model,
    )
    words = sum(model is not None for model in models)
    return segmenter_bytes(settings.of(SegmenterSettings)) + words * WORD_MODEL_BYTES
