"""Candidates as a column: masks equal to the grid stage's, and other thresholds without any model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import RunSpec, ShardTask, make_spec
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages import build as stages_module
from maskmill.workers.stages.build import build_stages
from tests.fakes import write_pictures

KEPT = MaskSettings(
    points_per_side=6,
    predicted_iou=0.3,
    stability=0.1,
    keep_candidates=True,
    candidate_iou=0.2,
    candidate_stability=0.0,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("candidates")
    write_pictures(folder / "inputs", 2)
    make_plan(open_store(folder / "data"), [str(folder / "inputs")], shard_size=2)
    return str(folder / "data")


def spec_of(root: str, masks: MaskSettings, weights: Path | None = None) -> RunSpec:
    segmenter = SegmenterSettings(weights=str(weights) if weights else None, threads=1)
    return make_spec(root, ingest=IngestSettings(), masks=masks, segmenter=segmenter)


def run(spec: RunSpec, attempt: str) -> CommitRecord:
    idle = tuple(
        column
        for column, digits in spec.fingerprints.items()
        if ColumnVersion(open_store(spec.root), column, digits).committed() == {0}
    )
    run_shard(build_stages(dataclasses.replace(spec, idle=idle)), ShardTask(shard=0, attempt=attempt))
    record = ColumnVersion(open_store(spec.root), "masks", spec.fingerprints["masks"]).record(0)
    assert record is not None
    return record


def samples(spec: RunSpec, record: CommitRecord) -> list[object]:
    version = ColumnVersion(open_store(spec.root), "masks", record.fingerprint)
    return list(version.read(record))


def test_thresholds_are_changed_without_a_model(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = spec_of(root, KEPT)
    plain = spec_of(root, dataclasses.replace(KEPT, keep_candidates=False))
    assert plain.fingerprints["masks"] == kept.fingerprints["masks"], "keeping candidates changes no mask"
    assert list(kept.fingerprints) == ["images", "candidates", "masks"]
    run(kept, "a" * 16)

    stricter = spec_of(root, dataclasses.replace(KEPT, predicted_iou=0.5, box_nms=0.6, min_area_px=9))
    assert stricter.fingerprints["candidates"] == kept.fingerprints["candidates"]
    assert stricter.fingerprints["masks"] != kept.fingerprints["masks"]

    def no_model(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(stages_module.LazySegmenter, "loaded", property(no_model))
    selected = run(stricter, "b" * 16)
    assert set(selected.inputs) == {"images"}
    monkeypatch.undo()

    # the same settings by the model, in a dataset of their own
    other = Path(root).parent / "other"
    make_plan(open_store(other), [str(Path(root).parent / "inputs")], shard_size=2)
    direct = dataclasses.replace(KEPT, predicted_iou=0.5, box_nms=0.6, min_area_px=9, keep_candidates=False)
    spec = spec_of(str(other), direct)
    assert spec.fingerprints["masks"] == stricter.fingerprints["masks"]
    assert samples(spec, run(spec, "c" * 16)) == samples(stricter, selected)


def test_candidates_depend_on_what_makes_them_alone(root: str) -> None:
    def digits(**changes: object) -> str:
        changed = dataclasses.replace(KEPT, **changes)  # type: ignore[arg-type]
        return spec_of(root, changed).fingerprints["candidates"]

    base = digits()
    for same in ({"predicted_iou": 0.9}, {"stability": 0.9}, {"max_coverage": 0.5}, {"min_area_px": 7}):
        assert digits(**same) == base, same
    for other in ({"candidate_iou": 0.1}, {"points_per_side": 5}, {"stability_offset": 0.5}):
        assert digits(**other) != base, other


def test_thresholds_below_the_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="lower the candidates' thresholds"):
        dataclasses.replace(KEPT, predicted_iou=0.1)
