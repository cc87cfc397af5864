"""A run's local paths mean the same in whatever folder its workers were started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskmill.pipeline.settings import BoxSettings, MaskSettings, SegmenterSettings
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import make_spec


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.safetensors").write_bytes(b"weights")
    Path("boxes.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    spec = make_spec(
        "data",
        ingest=IngestSettings(),
        masks=MaskSettings(),
        segmenter=SegmenterSettings(weights="own.safetensors"),
        boxes=BoxSettings(file="boxes.json"),
    )
    assert spec.root == str(tmp_path / "data")
    assert spec.settings.of(SegmenterSettings).weights == str(tmp_path / "own.safetensors")
    assert spec.settings.of(BoxSettings).file == str(tmp_path / "boxes.json")
