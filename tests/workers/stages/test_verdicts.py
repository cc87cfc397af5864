"""The verdicts column: what it stores of a picture, and how browse, preview and relabel use it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from maskmill.flows.runs.steps.relabel_plan import RelabelCaps
from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.verify.head import Verdicts
from maskmill.pipeline.verify.verifier import PictureVerdicts
from maskmill.storage.browse.gain import CLICK_S, LOOK_S, OPEN_S
from maskmill.storage.care.stale import qualities
from maskmill.storage.dataset.join import join
from maskmill.storage.shards.index import read_index
from maskmill.workers.page.app import make_app
from maskmill.workers.page.session import Session
from maskmill.workers.pictures.preview import preview_page
from maskmill.workers.reading.survey import sample_images
from maskmill.workers.run.spec import IMAGES, MASKS
from maskmill.workers.stages.verdicts.record import VERDICTS, unexplained_of
from tests.workers.page.conftest import PORT, SITE, TOKEN, Asked
from tests.workers.published import Published, publish_dataset, with_verdicts

SHARE = 0.5


def say(image: AnnotatedImage) -> PictureVerdicts:
    """The larger a mask, the surer it is right; something lies at the upper left without a mask."""
    areas = np.array([one.area_px for one in image.annotations], np.float32)
    right_N = np.clip(areas / 1000, 0.02, 0.98).astype(np.float32)
    map_RC = np.zeros((48, 64), np.float32)
    map_RC[:24, :32] = 1
    return PictureVerdicts(Verdicts(right_N, right_N * np.float32(0.9)), SHARE, map_RC, True)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return with_verdicts(publish_dataset(tmp_path_factory.mktemp("judged")), say)


def test_a_record_holds_a_verdict_a_mask_and_a_map(judged: Published) -> None:
    seen = 0
    for sample in join(judged.store, judged.generation, (IMAGES, MASKS, VERDICTS)):
        if VERDICTS not in sample.files:
            assert sample.rejects[MASKS].reason == "not_an_image"
            continue
        masks, found = (json.loads(sample.files[name]["json"]) for name in (MASKS, VERDICTS))
        assert [row["id"] for row in found["verdicts"]] == [row["id"] for row in masks["annotations"]]
        for row, mask in zip(found["verdicts"], masks["annotations"], strict=True):
            right = float(np.clip(mask["area"] / 1000, 0.02, 0.98))
            assert row["p_right"] == pytest.approx(right, abs=1e-4)
            assert row["expected_iou"] == pytest.approx(0.9 * right, abs=1e-4)
        assert (found["share_found"], found["calibrated"]) == (SHARE, True)
        map_RC = unexplained_of(found)
        assert map_RC.shape == (24, 32), "means of 2 x 2 cells"
        assert (map_RC[:12, :16] == 1).all() and map_RC.sum() == 12 * 16
        seen += 1
    assert seen == 9
    rows = [row for row in judged.generation.rows() if row.column == VERDICTS]
    assert all(row.index is not None for row in rows)
    table = read_index(judged.store, rows[0].index)  # type: ignore[arg-type]
    assert set(table.column_names) == {"key", "annotation_id", "expected_iou", "p_right", "share_found"}


@pytest.fixture
def page(judged: Published) -> Asked:
    session = Session(
        judged.store, judged.generation, person="ana", segmenter=SegmenterSettings(model="nano")
    )
    return Asked(TestClient(make_app(session, token=TOKEN, port=PORT), base_url=SITE), session, judged)


def test_browse_orders_filters_and_shows_by_verdicts(judged: Published, page: Asked) -> None:
    """Orders as an arithmetic of the very verdicts; a copy of a picture comes behind all others."""
    doubts, gains = dict[str, float](), dict[str, float]()
    for sample in join(judged.store, judged.generation, (VERDICTS,)):
        rows = json.loads(sample.files[VERDICTS]["json"])["verdicts"]
        right = np.array([row["p_right"] for row in rows])
        if len(rows):
            doubts[sample.key] = float(np.mean([1 - row["expected_iou"] for row in rows]))
            missing = right.sum() * (1 - SHARE) / SHARE
            looked = ((right > 0.1) & (right < 0.9)).sum()
            seconds = OPEN_S + LOOK_S * looked + CLICK_S * missing
            gains[sample.key] = 60 * (np.minimum(right, 1 - right).sum() + missing) / seconds
    assert len(set(gains.values())) > 3 and len(set(doubts.values())) > 3

    hardest = [key for key in page.keys(sort="hardest") if key in doubts]
    assert [doubts[key] for key in hardest] == sorted(doubts.values(), reverse=True)
    copies = set(page.session.catalogue.copies())
    first = [key for key in page.keys(sort="most gain") if key in gains and key not in copies]
    assert [gains[key] for key in first] == pytest.approx(
        sorted((gains[key] for key in first), reverse=True), rel=1e-5
    )
    behind = page.keys(sort="most gain")[-len(copies) :] if copies else []
    assert set(behind) == copies

    half = page.keys(where="hash(key) % 2 = 0")
    assert 0 < len(half) < len(doubts), "a set of random pictures, kept apart for measures"
    good = page.pictures(where="expected_iou > 0.5")
    assert good and all(0 < one["matching"] <= one["masks"] for one in good)
    record = page.get(f"api/pictures/{hardest[0]}")
    assert record["verdict"]["share_found"] == SHARE
    assert unexplained_of(record["verdict"]).shape == (24, 32)
    assert all("expected_iou" in row for row in record["annotations"])


def test_a_picture_that_nobody_judged_shows_no_verdict(tmp_path: Path) -> None:
    published = publish_dataset(tmp_path)
    session = Session(
        published.store, published.generation, person="ana", segmenter=SegmenterSettings(model="nano")
    )
    asked = Asked(TestClient(make_app(session, token=TOKEN, port=PORT), base_url=SITE), session, published)
    assert asked.get("api/pictures/000000001")["verdict"] is None
    assert 'id="open"' not in preview_page(published.store, published.generation)


def test_preview_lays_the_map_over_the_picture(judged: Published) -> None:
    (one,) = sample_images(judged.store, judged.generation, 1)
    assert one.unexplained_RC is not None and one.unexplained_RC[0, 0] == 1
    document = preview_page(judged.store, judged.generation, num_images=100)
    assert document.count('<img class="open"') == 9
    assert 'id="open"' in document and "something without a mask" in document


def test_the_worst_shards_are_the_worst_by_verdicts(judged: Published) -> None:
    rows = judged.generation.rows()
    masks = [row for row in rows if row.column == MASKS]
    verdicts = {row.shard: row for row in rows if row.column == VERDICTS}
    by_verdicts = qualities(judged.store, masks, verdicts)
    for shard, quality in by_verdicts.items():
        said = [
            row["expected_iou"]
            for sample in join(judged.store, judged.generation, (VERDICTS,), shards=[shard])
            for row in json.loads(sample.files[VERDICTS]["json"])["verdicts"]
        ]
        assert quality == pytest.approx(np.mean(said) if said else 0.0)
    some = {shard: row for shard, row in verdicts.items() if shard}
    assert qualities(judged.store, masks, some) == qualities(judged.store, masks, {}) != by_verdicts
    assert RelabelCaps(order="worst").order == "worst"
