"""The page's addresses: pages of pictures, filters, one picture, errors in a sentence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

import pytest
from PIL import Image

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.browse.filters import SORTS, Filters
from maskmill.storage.dataset.generations import Publication, publish_over
from maskmill.storage.dataset.merge import committed_rows, merge_rows
from maskmill.storage.errors import DatasetError, NoSuchThing
from maskmill.storage.plan.plan import load_plans
from maskmill.workers.exports.export import export
from maskmill.workers.measure.compare import changed_pictures
from maskmill.workers.page.session import Session
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.masks.grid import GridMasks
from tests.fakes import FakeMasks, Pixels
from tests.workers.page.conftest import TOKEN, Asked
from tests.workers.published import CAPTION, HOSTILE_NAME, NUM_ANNOTATED

NOW = "2025-01-02T00:00:00+00:00"


def fewer_masks(images: Sequence[Pixels]) -> list[AnnotatedImage]:
    """As `FakeMasks`, without the first mask of each image."""
    return [replace(one, annotations=one.annotations[1:]) for one in FakeMasks()(images)]


def test_pages_follow_each_other_and_hold_every_picture_once(page: Asked) -> None:
    page.keys(limit=1)
    first = page.get("api/pictures", limit=1)
    assert not first["complete"] and first["searched"] < 1  # shards behind the page were not asked
    found: list[str] = []
    for offset in range(0, 12, 3):
        found += page.keys(offset=offset, limit=3)
    assert found == [f"{i:09d}" for i in range(1, 11)]
    assert len(page.keys(limit=200)) == 10


@pytest.mark.parametrize("sort", sorted(SORTS))
def test_every_order_gives_every_picture(page: Asked, sort: str) -> None:
    assert sorted(page.keys(sort=sort, seed=4)) == [f"{i:09d}" for i in range(1, 11)]


def test_orders_order(page: Asked) -> None:
    by_masks = page.pictures(sort="most masks")
    counts = [one["masks"] for one in by_masks]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    assert page.pictures(sort="hardest")[0]["masks"] == 0  # nothing was found in it
    assert (
        page.keys(sort="random", seed=1)
        == page.keys(sort="random", seed=1)
        != page.keys(sort="random", seed=2)
    )


def test_filters_choose_pictures_by_masks_words_and_rejects(page: Asked) -> None:
    some = page.pictures(min_iou=0.925)
    assert some and all(0 < one["matching"] < one["masks"] for one in some)
    assert page.keys(min_iou=0.99) == []
    assert page.keys(max_area_px=0) == []
    assert page.keys(text="DOG <b>") == page.keys(text="<script>")
    rejected = page.pictures(reject="any")
    assert [one["reject"] for one in rejected] == ["not_an_image"] and "broken" in rejected[0]["source"]
    assert page.keys(reject="not_an_image") and not page.keys(reject="duplicate")
    assert len(page.keys(made_by="automatic")) == 10 and not page.keys(made_by="person")
    assert page.keys(level="part") == [] and len(page.keys(level="whole")) > 5
    assert page.keys(label="cat") == []


def test_sql_sees_masks_and_pictures_and_nothing_else(page: Asked) -> None:
    assert page.keys(where="area_px > 10 and source like '%0.jpg'") == ["000000001"]
    assert len(page.keys(where="annotation_id is null")) == 2  # the black one and the broken one
    for bad in ("nosuch > 1", "1; drop table found", "area_px > (", "1) or (select 1", "x' --"):
        answer = page.client.get(f"/{TOKEN}/api/pictures", params={"where": bad})
        assert answer.status_code == 400 and answer.json()["error"], bad
    spy = "(select count(*) from read_csv('/etc/passwd')) > 0"
    said = page.client.get(f"/{TOKEN}/api/pictures", params={"where": spy})
    assert said.status_code == 400 and "reads this dataset and nothing else" in said.json()["error"]
    assert len(page.keys(limit=200)) == 10


def test_one_picture_has_its_masks_and_what_made_them(page: Asked) -> None:
    (key,) = page.keys(text="<script>")
    found = page.get(f"api/pictures/{key}")
    assert found["image"]["source"].endswith(HOSTILE_NAME) and found["image"]["caption"] == CAPTION
    assert {one["column"] for one in found["columns"]} == {"images", "masks"}
    assert found["annotations"] and found["by"] == "automatic"
    jpeg = page.client.get(f"/{TOKEN}/api/pictures/{key}/image.jpg")
    with Image.open(io.BytesIO(jpeg.content)) as image:
        assert image.size == (found["image"]["width"], found["image"]["height"])


def test_pictures_are_upright_and_thumbnails_show_masks(page: Asked) -> None:
    (key,) = page.keys(text="turned.jpg")
    found = page.get(f"api/pictures/{key}")["image"]
    assert (found["width"], found["height"]) == (48, 64)
    painted, bare = (
        page.client.get(f"/{TOKEN}/api/pictures/{key}/thumb.jpg", params={"side": 32, "masks": masks}).content
        for masks in (True, False)
    )
    with Image.open(io.BytesIO(painted)) as image:
        assert max(image.size) == 32
    assert painted != bare


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("api/pictures?sort=best", 400),
        ("api/pictures?limit=0", 400),
        ("api/pictures?min_iou=nan", 400),
        ("api/pictures?min_iou=much", 422),
        ("api/pictures?level=top", 422),
        ("api/pictures/000000999", 500),
        ("api/pictures/nokey/image.jpg", 500),
        ("api/pictures/000000001/thumb.jpg?side=100000", 400),
        ("static/nothing.js", 404),
        ("static/..%2Fserve.py", 404),
    ],
)
def test_errors_are_sentences(page: Asked, path: str, status: int) -> None:
    answer = page.client.get(f"/{TOKEN}/{path}")
    assert answer.status_code == status, answer.text
    if path.startswith("api"):
        assert len(answer.json()["error"]) > 10


def test_about_says_what_is_browsed(page: Asked) -> None:
    about = page.get("api/about")
    assert (about["images"], about["generation"], about["person"]) == (10, 1, "ana")
    assert about["columns"] == ["images", "masks"] and about["rejects"] == {"not_an_image": 1}
    assert NUM_ANNOTATED == 9


def test_the_pages_parts_are_package_data(page: Asked) -> None:
    parts = sorted(part.name for part in (files("maskmill.workers.page") / "static").iterdir())
    assert {"main.js", "page.css", "rle.js"} <= set(parts)
    for part in parts:
        assert page.client.get(f"/{TOKEN}/static/{part}").status_code == 200


def test_what_is_found_is_saved_as_a_set_and_filtered_by(page: Asked) -> None:
    found = page.keys(min_area_px=30)
    assert 0 < len(found) < 10
    kept = page.post("api/sets", {"name": "large", "who": "ana", "filters": {"min_area_px": 30.0}})
    assert kept == {"name": "large", "number": 1, "pictures": len(found)}
    assert page.keys(chosen="large") == found and page.get("api/about")["sets"] == ["large"]
    assert page.post("api/review/queue", {"filters": {"chosen": "large"}})["keys"] == found
    refused = page.post("api/sets", {"name": "No name", "who": "ana", "filters": {}}, 400)
    assert "cannot be a set's name" in refused["error"]
    refused = page.client.get(f"/{TOKEN}/api/pictures", params={"chosen": "none"})
    assert refused.status_code == 400 and "there are large" in refused.json()["error"]

    # The same name again: who asks for the set gets the new one
    page.post("api/sets", {"name": "large", "who": "ana", "filters": {"text": "1.jpg"}})
    assert page.keys(chosen="large") == page.keys(text="1.jpg") != found

    # Exports and relabels take it
    store, generation = page.published.store, page.published.generation
    report = export(store, generation, f"{store.root}-out", format="coco", images=False, only="large")
    assert report.num_images == len(page.keys(text="1.jpg"))
    with pytest.raises(NoSuchThing, match="no set of pictures"):
        export(store, generation, f"{store.root}-none", format="coco", images=False, only="none")


def test_pictures_whose_masks_changed_since_a_generation_are_found(page: Asked) -> None:
    store, before = page.published.store, page.published.generation
    spec = replace(page.published.spec, fingerprints={**page.published.spec.fingerprints, "masks": "2" * 16})
    stage = GridMasks(fewer_masks, fingerprint="2" * 16, models={})
    run_shard(Stages(spec, store, load_plans(store), (stage,)), ShardTask(shard=1, attempt="a" * 16))
    merged = merge_rows(store, committed_rows(store, spec.fingerprints, before).fresh, before)
    facts = {"columns": spec.fingerprints, "settings": {}, "models": {}, "totals": {}}
    after = publish_over(store, lambda parent: Publication(merged.rows, facts), NOW, made_by="relabel")
    session = Session(store, after, person="ana", segmenter=SegmenterSettings(model="nano"))
    try:

        def found(**asked: str) -> list[str]:
            return session.search(Filters(since="1", **asked)).keys("key")

        changed = {one.key: one for one in changed_pictures(store, before, after)}
        assert changed and {one.shard for one in changed.values()} == {1}
        assert found() == sorted(changed)
        assert found(change="gone") == sorted(key for key, one in changed.items() if one.removed)
        assert found(change="new") == sorted(key for key, one in changed.items() if one.added)
        assert found(change="gone") and not found(change="changed")
        with pytest.raises(DatasetError, match="7"):
            session.search(Filters(since="7"))
    finally:
        session.close()
