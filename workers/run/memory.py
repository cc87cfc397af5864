"""Host memory that a worker needs on a CPU, from its models' sizes and kinds, not from their names.

    0.95 GB for the process and decoded photographs, 0.6 GB more where the encoder attends over a whole
    image; 3.4 times the segmenter's weights (read, held, and what passes through its layers); the weights of
    each model of words and 1.1 GB beside

The numbers fit what was measured at 1500 x 2250 px: 1 GB for nano, 3, 6 and 10 GB for ViT-B, L and H; 3 for
BLIP-large. It doesn't know: batches, half precision, what a GPU holds.
"""

from __future__ import annotations

from pathlib import Path

from maskmill.pipeline.families import STUDENT
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.weights.weights import WeightsError, locate, model_files, resolve
from maskmill.pipeline.words.settings import CaptionSettings, LabelSettings, NameSettings
from maskmill.workers.run.columns import Sections

GB = 10**9
PROCESS_BYTES = 95 * 10**7
ATTENTION_BYTES = 6 * 10**8
SEGMENTER_TIMES = 3.4
WORDS_BESIDE_BYTES = 11 * 10**8
UNKNOWN_BYTES = 26 * 10**8
"""Of weights that are not at hand here: the largest, ViT-H's."""

CONVOLUTIONAL = ("nano", STUDENT)
"""Families whose encoder attends over no whole image."""


def worker_bytes(settings: Sections) -> int:
    """What one worker of a run needs of its node's memory.

    Args:
        settings: of the run; weights that are missing here count as the largest there are.
    """
    segmenter = settings.of(SegmenterSettings)
    family = segmenter.model.partition(":")[0]
    attention = 0 if family in CONVOLUTIONAL else ATTENTION_BYTES
    held = SEGMENTER_TIMES * _segmenter_bytes(segmenter)
    words = sum(_file_bytes(source, role) + WORDS_BESIDE_BYTES for role, source in _word_models(settings))
    return PROCESS_BYTES + attention + round(held) + words


def _word_models(settings: Sections) -> list[tuple[str, str]]:
    """Role and source of each model of words that is loaded."""
    captions = settings.of(CaptionSettings)
    named = [
        ("captioner", captions.model),
        ("filter", captions.filter if captions.model is not None else None),
        ("detector", settings.of(LabelSettings).model),
        ("namer", settings.of(NameSettings).model),
    ]
    return [(role, source) for role, source in named if source is not None]


def _segmenter_bytes(settings: SegmenterSettings) -> int:
    try:
        return _size_of(resolve(settings))
    except WeightsError:
        return UNKNOWN_BYTES


def _file_bytes(source: str, role: str) -> int:
    try:
        return _size_of(locate(source, role=role))
    except WeightsError:
        return UNKNOWN_BYTES


def _size_of(path: Path) -> int:
    """Bytes of a weights file, or of what is read of a model's folder."""
    files = model_files(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
