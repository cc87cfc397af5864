"""The masks column: SA-1B records, from the grid, from kept candidates, or from given boxes.

One record and one index whatever made them; `boxes.file` names given boxes, `masks.keep_candidates` selects
from candidates, else the grid is prompted. Masks selected from candidates are the very ones that the grid
gives, so their fingerprint is the grid's.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings, output_settings
from maskmill.pipeline.settings.words import BOXES_REVISION, BoxSettings
from maskmill.workers.run.columns import MASKS, Column, ColumnFacts, Sections, segmenter_name, with_pinned
from maskmill.workers.stages.embeddings import embedding_reads, reading
from maskmill.workers.stages.masks.grid import grid_facts, grid_stage

if TYPE_CHECKING:
    from maskmill.workers.stages.base import Bench, Stage


def box_facts(boxes: BoxSettings, segmenter: SegmenterSettings) -> ColumnFacts:
    """What the fingerprint of masks from given boxes is made of.

    Raises:
        WeightsError: the segmenter's weights are missing or damaged.
        maskmill.storage.errors.InputError: the boxes' file is missing.
    """
    from maskmill.workers.foreign.boxes import sha256_of  # imports Pillow

    assert boxes.file is not None, "without a file masks come from the grid"
    return ColumnFacts(
        settings={**output_settings(boxes), "file": sha256_of(boxes.file), **output_settings(segmenter)},
        revision=BOXES_REVISION,
        models={"segmenter": weights_identity(segmenter)},
    )


def _resolved(settings: Sections) -> dict[str, Any]:
    boxes = settings.of(BoxSettings)
    found: dict[str, Any] = {
        "segmenter": with_pinned(settings.of(SegmenterSettings), "weights"),
        "masks": settings.of(MaskSettings),
    }
    if boxes.file is not None:
        from maskmill.workers.foreign.boxes import absolute  # imports Pillow

        found["boxes"] = dataclasses.replace(boxes, file=absolute(boxes.file))
    return found


def _check(settings: Sections) -> None:
    if settings.of(BoxSettings).file is not None and settings.of(MaskSettings).keep_candidates:
        raise ValueError("boxes.file makes masks without a grid: masks.keep_candidates has nothing to keep")


def _facts(settings: Sections) -> ColumnFacts:
    boxes, segmenter = settings.of(BoxSettings), settings.of(SegmenterSettings)
    if boxes.file is not None:
        facts = box_facts(boxes, segmenter)
    else:
        facts = grid_facts(settings.of(MaskSettings), segmenter)
    return dataclasses.replace(facts, reads=embedding_reads(settings))


def _stage(bench: Bench) -> Stage:
    """The stage for what the settings ask; boxes and candidates import torch."""
    masks, boxes = bench.settings.of(MaskSettings), bench.settings.of(BoxSettings)
    models = {"segmenter": segmenter_name(bench.settings.of(SegmenterSettings))}
    if boxes.file is not None:
        from maskmill.workers.stages.masks.boxes import box_stage

        return reading(box_stage(bench, boxes, models), bench.settings)
    if masks.keep_candidates:
        from maskmill.workers.stages.masks.selected import SelectedMasks

        return SelectedMasks(masks, fingerprint=bench.fingerprint, models=models)
    return reading(grid_stage(bench, masks, models), bench.settings)


COLUMN = Column(
    name=MASKS,
    sections={"segmenter": SegmenterSettings, "masks": MaskSettings, "boxes": BoxSettings},
    is_made=lambda settings: True,
    resolved=_resolved,
    check=_check,
    facts=_facts,
    stage=_stage,
)
