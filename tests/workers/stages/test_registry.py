"""The list of columns: their order, their sections, and what is refused before work starts."""

from __future__ import annotations

import dataclasses

import pytest

from maskmill.flows.config import RunConfig
from maskmill.pipeline.settings import LabelSettings, MaskSettings
from maskmill.storage.dataset.columns import BRINGING
from maskmill.workers.stages.registry import (
    COLUMNS,
    column_names,
    facts_of,
    joined_columns,
    resolved,
    section_kinds,
    sections_of,
    standing_in,
)


def test_columns_are_made_after_what_they_are_made_from() -> None:
    names = column_names()
    assert len(set(names)) == len(names)
    assert (names[0], names[-1]) == ("images", "review")
    made = facts_of(resolved(sections_of({})))
    for place, column in enumerate(made):
        assert set(made[column].reads) <= set(list(made)[:place]), column


def test_every_section_is_a_field_of_a_runs_configuration() -> None:
    fields = RunConfig.model_fields
    assert {name for name in section_kinds() if name not in fields} == set()
    for name, kind in section_kinds().items():
        assert isinstance(getattr(RunConfig(), name), kind), name


def test_columns_that_bring_masks_are_joined_first() -> None:
    brings = [column.join.brings is not None for column in joined_columns() if column.join]
    assert brings == sorted(brings, reverse=True) and any(brings) and not all(brings)
    assert standing_in() == ("review",)
    bringing = [column.name for column in joined_columns() if column.join and column.join.brings is not None]
    assert tuple(bringing) == BRINGING, "storage knows them by name: their index has their masks"


def test_what_is_off_has_no_facts() -> None:
    off = facts_of(resolved(sections_of({"masks": MaskSettings()})))
    assert set(off) == {"images", "masks"}
    kept = dataclasses.replace(MaskSettings(), keep_candidates=True)
    assert set(facts_of(resolved(sections_of({"masks": kept})))) == {"images", "candidates", "masks"}
    assert all(not column.is_made(sections_of({})) for column in COLUMNS if column.name == "review")


def test_sections_that_are_none_or_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no section 'mask': use .*masks"):
        sections_of({"mask": MaskSettings()})
    with pytest.raises(ValueError, match="section 'masks' is LabelSettings: use MaskSettings"):
        sections_of({"masks": LabelSettings()})
    with pytest.raises(ValueError, match="captions are off: name captions"):
        sections_of({"labels": LabelSettings(model="somewhere/dino", text="captions")})
    assert dict(sections_of({"labels": None})) == {}
