"""Masks that labels bring: filtered like the grid's, rows of an index, counted; older labels are read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from maskmill.dataset import Dataset
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.words import LabelSettings
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion, list_versions
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.dataset.merge import count_rows
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.query.query import load_table, run_query, table_names
from maskmill.storage.shards.index import read_index
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.reading.word_rows import rows_for
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import IMAGES, RunSpec, ShardTask, make_spec
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from maskmill.workers.stages.labels import COLUMN, LABELS, LabelStage
from maskmill.workers.stages.registry import facts_of, resolved, sections_of
from tests.tiny_models import save_grounding_dino
from tests.workers.published import write_inputs

MASKS = MaskSettings(points_per_side=4, predicted_iou=0.1, stability=0.0)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelSettings:
    """Of a small detector that finds much."""
    model = save_grounding_dino(tmp_path_factory.mktemp("model") / "detector")
    words = ("red cat", "big dog")
    return LabelSettings(model=str(model), text="vocabulary", vocabulary=words, box_threshold=0.3)


@dataclass(frozen=True)
class Made:
    """One dataset: a generation of labels from before there were filters and an index, and one since."""

    spec: RunSpec
    before: Generation
    now: Generation


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, labels: LabelSettings) -> Made:
    folder = tmp_path_factory.mktemp("labels")
    write_inputs(folder / "inputs")
    store = open_store(folder / "data")
    make_plan(store, [str(folder / "inputs")], shard_size=6)

    off = dataclasses.replace(labels, predicted_iou=0.0, stability=0.0, min_area_px=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelStage, "index", ())
        _, before = annotate(store, off)
    spec, now = annotate(store, dataclasses.replace(labels, stability=0.3))
    return Made(spec, before, now)


def annotate(store: ObjectStore, labels: LabelSettings) -> tuple[RunSpec, Generation]:
    """All columns, or the labels alone where the others are there."""
    segmenter = SegmenterSettings(device="cpu")
    spec = make_spec(store.root, ingest=IngestSettings(), masks=MASKS, segmenter=segmenter, labels=labels)
    done = tuple(column for column in (IMAGES, "masks") if list_versions(store, column))
    stages = build_stages(dataclasses.replace(spec, idle=done))
    for shard in range(load_plans(store).num_shards):
        run_shard(stages, ShardTask(shard=shard, attempt="a" * 16))
    created = "2025-01-01T00:00:00+00:00"
    return spec, publish(store, spec.fingerprints, settings={}, models={}, totals={}, created_utc=created)


SCORES = "select annotation_id, stability_score from labels_masks order by annotation_id"


def test_every_mask_that_labels_bring_passed_the_filter_and_has_its_row(made: Made) -> None:
    store = made.now.store
    version = ColumnVersion(store, LABELS, made.spec.fingerprints[LABELS])
    indexed = [
        (row["annotation_id"], row["stability_score"])
        for record in version.records()
        if record.index is not None
        for row in read_index(store, record.index).to_pylist()
    ]
    before = run_query(store, made.before, SCORES, rows_for=rows_for).rows
    assert [score for _, score in indexed] == [score for _, score in before if score >= 0.3]
    assert 0 < len(indexed) < len(before)
    assert run_query(store, made.now, SCORES, rows_for=rows_for).rows == tuple(indexed)
    assert count_rows(store, made.now.row_set())["labels_masks"] == len(indexed)
    assert verify(store, deep=True).ok


def test_labels_from_before_are_read_as_they_were(made: Made) -> None:
    """No index: rows come from records, and the totals say nothing of what nobody counted."""
    store, before = made.before.store, made.before
    assert all(row.index is None for row in before.rows() if row.column == LABELS)
    assert {"labels", "labels_masks"} <= set(table_names(before))
    assert "labels_masks" not in count_rows(store, before.row_set())

    # What labels say is the same rows with an index and without
    words = "select label, score from labels order by all"
    then = run_query(store, before, words, rows_for=rows_for)
    assert then == run_query(store, made.now, words, rows_for=rows_for) and len(then.rows) > 0
    assert Dataset(before).table("labels").num_rows == len(then.rows)
    masks = run_query(store, before, SCORES, rows_for=rows_for).rows
    assert load_table(store, before, "labels_masks", rows_for).num_rows == len(masks)


def test_filters_are_the_grids_unless_labels_have_their_own(labels: LabelSettings) -> None:
    masks = MaskSettings(predicted_iou=0.7, stability=0.8, min_area_px=50)
    found = resolved(sections_of({"masks": masks, "labels": labels})).of(LabelSettings)
    assert (found.predicted_iou, found.stability, found.min_area_px) == (0.7, 0.8, 50)
    own = dataclasses.replace(labels, stability=0.0, min_area_px=9)
    found = resolved(sections_of({"masks": masks, "labels": own})).of(LabelSettings)
    assert (found.predicted_iou, found.stability, found.min_area_px) == (0.7, 0.0, 9)


def test_filters_that_keep_all_leave_older_labels_valid(labels: LabelSettings) -> None:
    """The settings that the fingerprint covers, as they were before there were filters."""
    off = dataclasses.replace(labels, predicted_iou=0.0, stability=0.0, min_area_px=0)
    assert dict(COLUMN.facts(resolved(sections_of({"labels": off}))).settings) == {
        "text": "vocabulary",
        "box_threshold": 0.3,
        "text_threshold": 0.2,
        "box_nms": 0.5,
        "per_class": False,
        "max_boxes": 300,
        "link_iou": 0.9,
        "dtype": "float32",
        "phrases": ["red cat", "big dog"],
        "segmenter": {"model": "nano", "dtype": "float32"},
    }
    with_them = facts_of(resolved(sections_of({"labels": labels, "masks": MaskSettings()})))[LABELS].settings
    assert (with_them["predicted_iou"], with_them["stability"], "min_area_px" in with_them) == (
        0.88,
        0.95,
        False,
    )
