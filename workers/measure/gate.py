"""Measures two segmenters on a gate set and compares them; see pipeline/evaluate/gate.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.checks import finite
from maskmill.pipeline.evaluate.gate import decide
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.truth import TruthSet
from maskmill.workers.measure.evaluate import evaluate
from maskmill.workers.run.dataset_models import load

if TYPE_CHECKING:
    from maskmill.pipeline.settings import SegmenterSettings
    from maskmill.pipeline.settings.evaluate import EvaluateSettings, GateSettings


def compare(
    before: SegmenterSettings,
    after: SegmenterSettings,
    coco: Path,
    images: Path,
    settings: EvaluateSettings,
    gate: GateSettings,
) -> dict[str, Any]:
    """The gate's decision between two models, and all figures of both.

    Args:
        before, after: the model in force and the candidate.
        coco, images: the gate set.
        settings: what is measured.
        gate: how it is decided.

    Returns:
        Also `left_out`, where annotations of the gate set are no true masks: how many, by reason.

    Raises:
        InputError: the set cannot be read, or the gate's figure isn't among what is measured.
    """
    source = [TruthSet(coco.stem, coco, images)]
    old, new = (evaluate(load(one), source, settings) for one in (before, after))
    rows_before, rows_after = ({one.name: one.rows for one in found.sets} for found in (old, new))
    try:
        decision = decide(rows_before, rows_after, gate)
    except ValueError as exc:
        raise InputError(str(exc)) from exc
    figures = [{**one.figures()["sets"][coco.stem]} for one in (old, new)]
    facts = {**decision.facts(), "before": finite(figures[0]), "after": finite(figures[1])}
    left_out = new.left_out.get(coco.stem)
    return {**facts, "left_out": dict(left_out)} if left_out else facts
