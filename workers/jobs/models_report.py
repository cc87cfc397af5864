"""Whether the models that settings name are here, whole, and the right ones: JSON in, JSON out.

    echo '{"segmenter": {"model": "nano"}, "words": {"captioner": "owner/name"}}' | \
        python -m maskmill.workers.jobs.models_report

A process of its own, because a model may need more memory than there is. Nothing is fetched. The segmenter is
built with its weights, on the CPU; of word models the files are looked at.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def report(segmenter: dict[str, Any], words: dict[str, str]) -> list[dict[str, Any]]:
    """A row a model: role, source, path, sha256, what vouches for it, the error that a run would end with.

    Args:
        segmenter: fields of `SegmenterSettings`.
        words: role -> folder or hub id.
    """
    from maskmill.pipeline.settings import SegmenterSettings

    settings = SegmenterSettings(**{**segmenter, "device": "cpu"})
    rows = [_segmenter(settings)]
    return rows + [_word_model(role, source) for role, source in words.items()]


def _segmenter(settings: Any) -> dict[str, Any]:
    from maskmill.pipeline.segmenters import load_segmenter
    from maskmill.pipeline.settings.published import published
    from maskmill.pipeline.weights import weights
    from maskmill.pipeline.weights.errors import WeightsError

    row = {"role": "segmenter", "source": settings.weights or f"{settings.model}'s own", **_NOTHING}
    try:
        path = weights.resolve(settings)
        row |= {"path": str(path), "sha256": weights.sha256_of(path)}
        one = published(path.name)
        row["is_published"] = one is not None and one.sha256 == row["sha256"]
        row["is_other"] = one is not None and one.sha256 != row["sha256"]
        load_segmenter(settings)
    except (WeightsError, ValueError) as exc:
        row |= {"error": str(exc), "on_hub": _on_hub(settings.weights, row)}
    return row


def _word_model(role: str, source: str) -> dict[str, Any]:
    from maskmill.pipeline.weights import weights
    from maskmill.pipeline.weights.errors import WeightsError

    row = {"role": role, "source": source, **_NOTHING}
    try:
        path = weights.locate(source, role=role)
        row |= {"path": str(path), "sha256": weights.sha256_of(path)}
    except WeightsError as exc:
        row |= {"error": str(exc), "on_hub": _on_hub(source, row)}
    return row


_NOTHING: dict[str, Any] = {
    "path": None,
    "sha256": None,
    "is_published": False,
    "is_other": False,
    "error": None,
    "on_hub": False,
}


def _on_hub(source: str | None, row: dict[str, Any]) -> bool:
    """Whether it only wasn't fetched yet."""
    from maskmill.pipeline.weights import hub

    return row["path"] is None and source is not None and hub.parse(source) is not None


if __name__ == "__main__":
    os.environ.update({"HF_HUB_OFFLINE": "1", "MASKMILL_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})
    asked = json.load(sys.stdin)
    json.dump(report(asked["segmenter"], asked["words"]), sys.stdout)
