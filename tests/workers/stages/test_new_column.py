"""A column that maskmill doesn't have, `depth`, from a file of its own to readers, an index and a query.

What it takes here is what it takes in the product: the file (this class, its settings and its `Column`), a
line in the registry, and the section's field of `RunConfig`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from maskmill.flows.config import ConfigError, RunConfig, validate
from maskmill.flows.runs.steps.planning import describe_run
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE, AnnotatedImage
from maskmill.pipeline.checks import check_range
from maskmill.pipeline.settings import output_settings
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, latest
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.query.query import run_query
from maskmill.storage.shards.index import IndexField, read_index
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.export import export
from maskmill.workers.reading.samples import AnnotatedSample, read_annotated
from maskmill.workers.reviews.column import publish_saves
from maskmill.workers.reviews.keep import Work, begin, keep
from maskmill.workers.reviews.rows import MaskWork
from maskmill.workers.run.columns import IMAGES, MASKS, Column, ColumnFacts, Join, Record, Sections
from maskmill.workers.run.spec import RunSpec, ShardTask, make_spec
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages import registry
from maskmill.workers.stages.base import Bench, EncodedSample, Picture, Stage, StageResult, encode_record
from maskmill.workers.stages.build import Stages, build_stages
from maskmill.workers.stages.masks.grid import GridMasks
from tests.fakes import NEEDS_MEMORY, FakeMasks, write_pictures

# The file of the column


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthSettings:
    """Depth by brightness; `metres` None is off."""

    metres: float | None = None

    def __post_init__(self) -> None:
        if self.metres is not None:
            check_range("metres", self.metres, 0.0, 1000.0)


class DepthStage(Stage):
    """The mean depth of each mask."""

    column = "depth"
    reads = (MASKS,)
    index = (
        IndexField("key", "string"),
        IndexField("annotation_id", "int64"),
        IndexField("mean_m", "float64"),
    )

    def __init__(self, metres: float, *, fingerprint: str) -> None:
        self._metres = metres
        self.fingerprint = fingerprint
        self.models: Mapping[str, str] = {"depth": "brightness"}

    def prepare(self) -> None: ...

    def decode(self, files: Mapping[str, bytes]) -> list[float]:
        return [float(row["mean_m"]) for row in json.loads(files["json"])["depths"]]

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        results = []
        for picture in pictures:
            masks = picture.given[MASKS]
            assert isinstance(masks, AnnotatedImage)
            mean_m = float(picture.pixels_HWC.mean()) / 255 * self._metres
            depths = [round(mean_m, 3)] * len(masks.annotations)
            results.append(StageResult(partial(_encode, picture, depths), {"model": 0.1}, depths))
        return results


def _encode(picture: Picture, depths: Sequence[float]) -> EncodedSample:
    first = picture.image_id * ANNOTATION_IDS_PER_IMAGE
    rows = [{"id": first + place, "mean_m": depth} for place, depth in enumerate(depths)]
    encoded = encode_record(picture.key, {"depths": rows})
    index = [{"key": picture.key, "annotation_id": row["id"], "mean_m": row["mean_m"]} for row in rows]
    return dataclasses.replace(encoded, rows=index)


def _facts(settings: Sections) -> ColumnFacts:
    return ColumnFacts(settings=output_settings(settings.of(DepthSettings)), revision=1, reads=(MASKS,))


def _stage(bench: Bench) -> Stage:
    metres = bench.settings.of(DepthSettings).metres
    assert metres is not None
    return DepthStage(metres, fingerprint=bench.fingerprint)


def _put(info: Record, by_id: Mapping[int, Record], depth: Mapping[str, Any]) -> None:
    for row, found in zip(by_id.values(), depth["depths"], strict=True):
        row["depth_m"] = found["mean_m"]


DEPTH = Column(
    name="depth",
    sections={"depth": DepthSettings},
    is_made=lambda settings: settings.of(DepthSettings).metres is not None,
    resolved=lambda settings: {"depth": settings.of(DepthSettings)},
    facts=_facts,
    stage=_stage,
    join=Join(put=_put, mask_fields=("depth_m",)),
)


# The section's field


class DepthConfig(RunConfig):
    depth: DepthSettings = DepthSettings()


# The registry's line


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "COLUMNS", (*registry.COLUMNS, DEPTH))


def stages_of(spec: RunSpec) -> Stages:
    """As workers build them, but for the masks' model."""
    made = build_stages(dataclasses.replace(spec, idle=(MASKS,)))
    masks = GridMasks(FakeMasks(), fingerprint=spec.fingerprints[MASKS], models={"segmenter": "fake"})
    return dataclasses.replace(made, stages=(masks, *made.stages[1:]))


@pytest.fixture
def run(tmp_path: Path) -> tuple[DepthConfig, RunSpec]:
    """Five pictures in shards of three, one of which leaves no room for masks."""
    write_pictures(tmp_path / "in", 5, special={1: NEEDS_MEMORY})
    root = str(tmp_path / "data")
    make_plan(open_store(root), [str(tmp_path / "in")], shard_size=3)
    config = DepthConfig.model_validate({"depth": {"metres": 10.0}})
    return config, describe_run(root, config)


def test_it_is_made_indexed_published_joined_exported_and_queried(
    run: tuple[DepthConfig, RunSpec], tmp_path: Path
) -> None:
    config, spec = run
    assert list(spec.fingerprints) == [IMAGES, MASKS, "depth"]
    for shard in range(2):
        run_shard(stages_of(spec), ShardTask(shard=shard, attempt=f"{shard:016d}"))
    store = open_store(spec.root)

    # The record says what it was made of; what masks rejected is rejected with the reason
    version = ColumnVersion(store, "depth", spec.fingerprints["depth"])
    first = version.record(0)
    assert first is not None and set(first.inputs) == {IMAGES, MASKS}
    assert [(reject.key, reject.reason) for reject in first.rejects] == [("000000002", "no_masks")]
    assert first.seconds_by_step["model"] == pytest.approx(0.2)
    assert first.index is not None
    rows = read_index(store, first.index).to_pylist()
    assert len(rows) == first.index.num_samples > 2 and set(rows[0]) == {"key", "annotation_id", "mean_m"}

    # The generation has it, with its settings
    published = publish_and_verify(spec, config)
    assert published.check.ok and published.rejects == {"out_of_memory": 1}
    generation = latest(store)
    assert generation is not None and generation.columns["depth"] == spec.fingerprints["depth"]
    assert generation.settings["depth"] == {"metres": 10.0}

    # Readers, exports and queries see it
    samples = list(read_annotated(store, generation, words=True))
    assert len(samples) == 4
    found = {row["id"]: row["depth_m"] for one in samples for row in one.record["annotations"]}
    assert {row["annotation_id"]: row["mean_m"] for row in rows}.items() <= found.items()
    export(store, generation, str(tmp_path / "coco"), format="coco", images=False)
    coco = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert {row["id"]: row["depth_m"] for row in coco["annotations"]} == found
    asked = run_query(store, generation, "select count(*), max(mean_m) <= 10 from depth")
    assert asked.rows == ((len(found), True),)


def test_its_words_follow_a_mask_into_a_review(run: tuple[DepthConfig, RunSpec], tmp_path: Path) -> None:
    config, spec = run
    for shard in range(2):
        run_shard(stages_of(spec), ShardTask(shard=shard, attempt=f"{shard:016d}"))
    publish_and_verify(spec, config)
    store = open_store(spec.root)
    generation = latest(store)
    assert generation is not None
    sample = next(iter(read_annotated(store, generation)))
    start = begin(store, sample.key, record=sample.record, generation=generation.number)
    ids = [int(row["id"]) for row in start.rows]
    work = [MaskWork(how="confirmed", sources=(one,)) for one in ids[1:]]  # all are numbered anew
    keep(store, start, Work(who="Ana", tool="page", masks=work, rejected=ids[:1]), created_utc="2025")
    reviewed = publish_saves(store, created_utc="2025")
    assert reviewed is not None

    automatic = {row["id"]: row["depth_m"] for row in next(_joined(store, generation)).record["annotations"]}
    rows = next(_joined(store, reviewed, people=True)).record["annotations"]
    assert rows and [row["depth_m"] for row in rows] == [automatic[row["from"][0]] for row in rows]
    export(store, reviewed, str(tmp_path / "coco"), format="coco", images=False)
    coco = json.loads((tmp_path / "coco" / "annotations.json").read_text())["annotations"]
    mine = [row for row in coco if row["image_id"] == int(sample.key)]
    assert [row["depth_m"] for row in mine] == [row["depth_m"] for row in rows]


def _joined(store: ObjectStore, generation: Generation, *, people: bool = False) -> Iterator[AnnotatedSample]:
    return read_annotated(store, generation, people=people, words=True)


def test_it_resumes_and_is_made_from_masks_that_are_there(run: tuple[DepthConfig, RunSpec]) -> None:
    _, spec = run
    without = make_spec(spec.root, **{name: spec.settings[name] for name in spec.settings if name != "depth"})
    assert "depth" not in without.fingerprints
    run_shard(stages_of(without), ShardTask(shard=0, attempt="a" * 16))
    report = run_shard(stages_of(spec), ShardTask(shard=0, attempt="b" * 16))
    assert (report.already_done, report.num_annotated, report.rejects) == (False, 2, {"out_of_memory": 1})
    assert run_shard(stages_of(spec), ShardTask(shard=0, attempt="c" * 16)).already_done
    masks = ColumnVersion(open_store(spec.root), MASKS, spec.fingerprints[MASKS]).record(0)
    assert masks is not None and masks.attempt == "a" * 16


def test_its_settings_are_its_fingerprint_and_nobody_elses(run: tuple[DepthConfig, RunSpec]) -> None:
    _, spec = run
    other = make_spec(spec.root, **{**spec.settings, "depth": DepthSettings(metres=20.0)})
    assert {c for c in spec.fingerprints if other.fingerprints[c] != spec.fingerprints[c]} == {"depth"}


def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="section 'depth' is dict: use DepthSettings"):
        make_spec("nowhere", depth={"metres": 1.0})
    with pytest.raises(ValueError, match="there is no section 'deep': use ingest, embeddings, segmenter, "):
        make_spec("nowhere", deep=DepthSettings())


def test_a_config_of_this_version_has_a_field_for_every_section() -> None:
    with pytest.raises(ConfigError, match="depth"):
        validate({"recipe": "nano", "depth": {"metres": 1.0}})
    with pytest.raises(AttributeError, match="depth"):  # the registered toy's field is missing: not silent
        RunConfig().column_sections()
