"""What a column's fingerprint covers, and settings by section."""

from __future__ import annotations

import pickle

import pytest

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.words import BoxSettings, CaptionSettings, LabelSettings
from maskmill.workers.run.columns import ColumnFacts, Sections, fingerprints, named_models, weights_digits
from maskmill.workers.run.ingest_settings import INGEST_REVISION, IngestSettings
from maskmill.workers.run.spec import make_spec
from maskmill.workers.run.work_settings import WorkSettings
from maskmill.workers.stages import registry


def test_a_change_goes_on_to_what_was_derived_and_to_nothing_else() -> None:
    def digits(**changed: ColumnFacts) -> dict[str, str]:
        facts = {
            "images": ColumnFacts(settings={}, revision=1),
            "masks": ColumnFacts(settings={"a": 1}, revision=1),
            "captions": ColumnFacts(settings={}, revision=1),
            "labels": ColumnFacts(settings={}, revision=1, reads=("masks", "captions")),
        }
        return fingerprints({**facts, **changed})

    def changed_by(**changed: ColumnFacts) -> set[str]:
        before, after = digits(), digits(**changed)
        return {name for name in before if before[name] != after[name]}

    assert changed_by(masks=ColumnFacts(settings={"a": 2}, revision=1)) == {"masks", "labels"}
    assert changed_by(captions=ColumnFacts(settings={}, revision=2)) == {"captions", "labels"}
    assert changed_by(images=ColumnFacts(settings={}, revision=2)) == set(digits())
    model = ColumnFacts(settings={}, revision=1, reads=("masks", "captions"), models={"detector": "aa"})
    assert changed_by(labels=model) == {"labels"}


def test_models_are_digested_by_role_and_named_with_their_source() -> None:
    assert weights_digits({}) is None
    assert weights_digits({"segmenter": "aa"}) == "aa"
    assert weights_digits({"filter": "bb", "captioner": "aa"}) == "captioner:aa,filter:bb"
    facts = ColumnFacts(settings={}, revision=1, models={"namer": "cc"})
    assert named_models({"namer": "a/clip", "other": None}, facts) == {"namer": "a/clip sha256:cc"}


def test_sections_are_found_by_name_and_by_kind() -> None:
    sections = Sections({"segmenter": SegmenterSettings(threads=3)})
    assert sections["segmenter"] is sections.of(SegmenterSettings)
    assert sections.of(MaskSettings) == MaskSettings()
    changed = sections.having(SegmenterSettings(threads=4))
    assert (changed.of(SegmenterSettings).threads, sections.of(SegmenterSettings).threads) == (4, 3)
    assert dict(sections.having(MaskSettings(points_per_side=2))) == dict(sections)
    assert pickle.loads(pickle.dumps(sections)) == sections


def test_columns_have_names_and_sections_of_their_own() -> None:
    assert registry.column_names() == (
        "images",
        "embeddings",
        "candidates",
        "masks",
        "verdicts",
        "captions",
        "labels",
        "names",
        "review",
    )
    sections = [name for column in registry.COLUMNS for name in column.sections]
    assert len(sections) == len(set(sections))
    assert len(set(registry.section_kinds().values())) == len(sections)  # `Sections.of` tells them apart
    assert registry.standing_in() == ("review",)


def test_columns_that_bring_masks_are_joined_before_those_that_name_masks() -> None:
    assert [column.name for column in registry.joined_columns()] == [
        "labels",
        "verdicts",
        "captions",
        "names",
    ]


def test_a_run_keeps_the_sections_that_have_a_say() -> None:
    spec = make_spec(
        "r", masks=MaskSettings(points_per_side=4), captions=CaptionSettings(), boxes=BoxSettings()
    )
    assert set(spec.settings) == {"ingest", "segmenter", "masks"}
    assert list(spec.fingerprints) == ["images", "masks"]
    assert spec.work == WorkSettings() and spec.ingest == IngestSettings(rules=INGEST_REVISION)


def test_settings_that_do_not_go_together_are_refused() -> None:
    labels = LabelSettings(model="somewhere/dino")
    with pytest.raises(ValueError, match=r"captions are off: name captions\.model"):
        registry.sections_of({"labels": labels})
    kept = MaskSettings(keep_candidates=True, candidate_iou=0.5)
    with pytest.raises(ValueError, match="keep_candidates has nothing to keep"):
        registry.sections_of({"masks": kept, "boxes": BoxSettings(file="boxes.json")})


@pytest.mark.parametrize(
    "field, value", [("decode_threads", 0), ("encode_threads", 65), ("images_per_batch", 1025)]
)
def test_work_settings_name_the_field_and_its_range(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{field}={value} is out of range: use 1 to \d+"):
        WorkSettings(**{field: value})
