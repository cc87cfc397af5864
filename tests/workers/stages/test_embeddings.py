"""Kept embeddings: the same back, made beside masks or alone, and masks from them without an encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskmill.pipeline.decoder.kept import from_bytes, rounded, to_bytes
from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.segmenters.base import ImageEmbedding, Prompts
from maskmill.pipeline.settings import EmbeddingSettings, MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.words import LabelSettings
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.reading.kept_embeddings import KeptEmbeddings
from maskmill.workers.run.columns import Sections
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import RunSpec, ShardTask, make_spec
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages import labels
from maskmill.workers.stages.build import build_stages
from maskmill.workers.stages.shared import SharedEmbeddings
from tests.fakes import write_pictures

MASKS = MaskSettings(points_per_side=6, predicted_iou=0.3, stability=0.1)
SEGMENTER = SegmenterSettings(threads=1)


@pytest.fixture
def root(tmp_path: Path) -> str:
    write_pictures(tmp_path / "inputs", 3)
    make_plan(open_store(tmp_path / "data"), [str(tmp_path / "inputs")], shard_size=3)
    return str(tmp_path / "data")


def spec_of(root: str, masks: MaskSettings = MASKS, **settings: Any) -> RunSpec:
    return make_spec(
        root,
        ingest=IngestSettings(),
        masks=masks,
        segmenter=SEGMENTER,
        embeddings=EmbeddingSettings(**settings),
    )


def run(spec: RunSpec, attempt: str = "a" * 16) -> dict[str, list[Mapping[str, bytes]]]:
    """Runs what is missing of the shard; gives the files of each column's samples."""
    store = open_store(spec.root)
    idle = tuple(
        column
        for column, digits in spec.fingerprints.items()
        if ColumnVersion(store, column, digits).committed() == {0}
    )
    run_shard(build_stages(dataclasses.replace(spec, idle=idle)), ShardTask(shard=0, attempt=attempt))
    found = {}
    for column, digits in spec.fingerprints.items():
        version = ColumnVersion(store, column, digits)
        record = version.record(0)
        assert record is not None
        found[column] = [sample.files for sample in version.read(record)]
    return found


def published(spec: RunSpec) -> Generation:
    return publish(
        open_store(spec.root),
        spec.fingerprints,
        settings={},
        models={},
        totals={},
        created_utc="2025-01-01T00:00:00+00:00",
    )


def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a picture was encoded")

    monkeypatch.setattr("maskmill.pipeline.segmenters.sam.SamSegmenter.embed", refuse)


def embedding(*, maps: int = 0) -> ImageEmbedding:
    draw = torch.Generator().manual_seed(1)
    features = [torch.randn((8, 4, 4), generator=draw) * 10 ** (one - 1) for one in range(maps + 1)]
    return ImageEmbedding(features[0], 30, 40, 12, 16, tuple(features[1:]), logits_size=16 if maps else None)


@pytest.mark.parametrize(("form", "most"), [("float16", 1e-3), ("int8", 1 / 250)])
def test_an_embedding_comes_back_as_it_was(form: str, most: float) -> None:
    for made in (embedding(), embedding(maps=2)):
        back = rounded(made, form)
        for name in ("height", "width", "input_height", "input_width", "logits_size"):
            assert getattr(back, name) == getattr(made, name)
        assert len(back.maps) == len(made.maps)
        for was, now in zip((made.features_CHW, *made.maps), (back.features_CHW, *back.maps), strict=True):
            assert now.dtype == torch.float32
            assert float((now - was).abs().max()) <= most * float(was.abs().max())
        again = rounded(back, form)
        assert float((again.features_CHW - back.features_CHW).abs().max()) <= 1e-6 * float(
            back.features_CHW.abs().max()
        ), "what was kept once is kept alike again"


def test_bytes_that_are_no_embedding_are_refused() -> None:
    good = to_bytes(embedding())
    for bad in (b"", b"{}", good[:40], good[:-3], b"\xff" * 100):
        with pytest.raises(ValueError, match="not a kept embedding"):
            from_bytes(bad)
    wild = dataclasses.replace(embedding(), features_CHW=torch.full((2, 2, 2), float("inf")))
    with pytest.raises(ValueError, match="cannot hold"):
        to_bytes(wild)
    with pytest.raises(ValueError, match="form='float8' is unknown"):
        to_bytes(embedding(), "float8")


def test_keeping_changes_no_mask_and_is_made_alone_later(root: str) -> None:
    plain, keeping = spec_of(root), spec_of(root, keep="float16")
    assert plain.fingerprints["masks"] == keeping.fingerprints["masks"]
    assert list(keeping.fingerprints) == ["images", "embeddings", "masks"]
    masks = run(plain)["masks"]
    found = run(keeping, "b" * 16)  # masks are there: embeddings are made alone
    assert found["masks"] == masks
    assert [list(files) for files in found["embeddings"]] == [["safetensors"]] * 3


def test_reused_embeddings_give_the_same_masks_fresh_or_read_back(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reusing = spec_of(root, keep="float16", reuse=True)
    assert reusing.fingerprints["masks"] != spec_of(root).fingerprints["masks"]
    assert reusing.fingerprints["embeddings"] == spec_of(root, keep="float16").fingerprints["embeddings"]
    fresh = run(reusing)["masks"]

    # In another dataset of the same pictures: first the embeddings alone, then masks without an encoder
    other = str(tmp_path / "other")
    make_plan(open_store(other), [str(tmp_path / "inputs")], shard_size=3)
    run(spec_of(other, keep="float16"))
    no_encoder(monkeypatch)
    assert run(spec_of(other, keep="float16", reuse=True), "c" * 16)["masks"] == fresh

    # Other settings of masks, too
    changed = dataclasses.replace(MASKS, points_per_side=5)
    assert run(spec_of(other, changed, keep="float16", reuse=True), "d" * 16)["masks"] != fresh


def test_candidates_and_boxes_read_them_too(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dataclasses.replace(MASKS, keep_candidates=True, candidate_iou=0.2, candidate_stability=0.0)
    grid = run(spec_of(root, keep="float16", reuse=True))["masks"]
    no_encoder(monkeypatch)
    spec = spec_of(root, kept, keep="float16", reuse=True)
    assert spec.fingerprints["masks"] == spec_of(root, keep="float16", reuse=True).fingerprints["masks"]
    stricter = dataclasses.replace(kept, stability=0.2)
    run(spec_of(root, stricter, keep="float16", reuse=True), "b" * 16)
    assert grid


def test_a_picture_s_embedding_is_read_alone(root: str) -> None:
    spec = spec_of(root, keep="float16")
    found = run(spec)
    store, generation = open_store(root), published(spec)
    kept = KeptEmbeddings(store, generation, SEGMENTER)
    assert kept.shards == {0}
    for place, key in enumerate(("000000001", "000000002", "000000003")):
        got = kept.get(key)
        assert got is not None
        want = from_bytes(found["embeddings"][place]["safetensors"])
        assert torch.equal(got.features_CHW, want.features_CHW)
    other = KeptEmbeddings(store, generation, dataclasses.replace(SEGMENTER, dtype="bfloat16"))
    assert (other.shards, other.get("000000001")) == (frozenset(), None), "of another number format"


def test_a_click_on_a_kept_embedding_is_the_click_on_the_picture(root: str) -> None:
    spec = spec_of(root, keep="float16")
    run(spec)
    kept = KeptEmbeddings(open_store(root), published(spec), SEGMENTER).get("000000001")
    assert kept is not None
    segmenter = load_segmenter(SEGMENTER)
    prompts = Prompts(points_PK2=np.array([[[8.0, 8.0]]]), labels_PK=np.array([[1]]))
    shared = SharedEmbeddings(segmenter)
    pixels = np.zeros((kept.height, kept.width, 3), np.uint8)
    shared.keep(pixels, kept)
    (held,) = shared.embed([pixels])
    assert held is kept
    again = rounded(kept, "float16")
    first, second = (segmenter.prompt(one).predict(prompts) for one in (held, again))
    assert torch.equal(first.predicted_iou_PM, second.predicted_iou_PM), "bit for bit"


def test_settings_that_keep_nothing_reuse_nothing() -> None:
    with pytest.raises(ValueError, match="needs embeddings"):
        EmbeddingSettings(reuse=True)
    with pytest.raises(ValueError, match="keep='float8' is unknown"):
        EmbeddingSettings(keep="float8")


def test_labels_decode_their_boxes_from_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("identity", "weights_identity"):
        monkeypatch.setattr(labels, name, lambda *_, **__: "0" * 64)
    monkeypatch.setattr(labels, "looked_for", lambda _: ("dog",))
    kept = {"embeddings": EmbeddingSettings(keep="int8", reuse=True)}
    wanted = {"labels": LabelSettings(model="detector", vocabulary="words.txt")}
    with_kept = labels.COLUMN.facts(Sections({**wanted, **kept})).reads
    without = labels.COLUMN.facts(Sections(wanted)).reads
    assert set(with_kept) - set(without) == {"embeddings"}
