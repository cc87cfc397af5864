"""A worker's memory: the segmenter's, and that of each model of words that is on."""

from __future__ import annotations

from pathlib import Path

from maskmill.pipeline.settings import CaptionSettings, LabelSettings, SegmenterSettings
from maskmill.pipeline.settings.memory import GB, WORD_MODEL_BYTES, segmenter_bytes
from maskmill.workers.run.columns import Sections
from maskmill.workers.run.memory import worker_bytes


def test_a_run_of_masks_alone_needs_its_segmenter() -> None:
    for model in ("nano", "vit_b"):
        settings = SegmenterSettings(model=model)
        assert worker_bytes(Sections({"segmenter": settings})) == segmenter_bytes(settings) >= GB


def test_models_of_words_come_on_top(tmp_path: Path) -> None:
    captions = CaptionSettings(model=str(tmp_path / "no"), filter=str(tmp_path / "neither"))
    labels = LabelSettings(model=str(tmp_path / "nor"))
    alone = worker_bytes(Sections())
    assert worker_bytes(Sections({"captions": captions})) - alone == 2 * WORD_MODEL_BYTES
    assert worker_bytes(Sections({"captions": captions, "labels": labels})) - alone == 3 * WORD_MODEL_BYTES


def test_a_filter_without_a_captioner_is_not_loaded(tmp_path: Path) -> None:
    off = CaptionSettings(filter=str(tmp_path / "neither"))
    assert worker_bytes(Sections({"captions": off})) == worker_bytes(Sections())
