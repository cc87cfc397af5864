"""What people leave of a picture: begun, checked mask by mask, kept; two at once are both kept and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskmill.pipeline.rle import encode_mask
from maskmill.storage.dataset.saves import saved_numbers
from maskmill.storage.errors import InputError
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.reviews.keep import Start, Work, begin, keep
from maskmill.workers.reviews.rows import MaskWork, fates, is_hand_made
from tests.storage.datasets import CREATED, plan_pictures

KEY = "000000001"
HEIGHT, WIDTH = 6, 8


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A dataset of two planned pictures."""
    opened = open_store(tmp_path / "data")
    plan_pictures(opened, str(tmp_path / "photos"), 2)
    return opened


def coco(x: int, y: int, width: int = 2, height: int = 2) -> dict[str, Any]:
    """A rectangle's run lengths."""
    mask_HW = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask_HW[y : y + height, x : x + width] = True
    return encode_mask(mask_HW).to_coco()


def automatic(*labels: str | None) -> dict[str, Any]:
    """A record of automatic masks, one a label."""
    rows = []
    for place, label in enumerate(labels):
        rows.append(
            {
                "id": 100_000 + place,
                "segmentation": coco(place, place),
                "bbox": [place, place, 1, 1],
                "area": 4,
                "predicted_iou": 0.9,
                "stability_score": 0.97,
                "crop_box": [0, 0, WIDTH, HEIGHT],
                "point_coords": [[place, place]],
                "output_token": 1,
                "parent": None,
                **({"label": label} if label else {}),
            }
        )
    info = {"image_id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "000000001.jpg"}
    return {"image": info, "annotations": rows}


def begun(store: ObjectStore, *labels: str | None, **how: bool) -> Start:
    """A picture of automatic masks, begun."""
    return begin(store, KEY, record=automatic(*labels), generation=1, **how)


def test_every_mask_of_the_base_becomes_something(store: ObjectStore) -> None:
    start = begun(store, None, "cat", "cat", "dog", None)
    masks = [
        MaskWork(how="kept", sources=(100_000,)),
        MaskWork(how="merged", sources=(100_001, 100_002), segmentation=coco(1, 1, 3, 3), clicks=2),
        MaskWork(how="split", sources=(100_003,), segmentation=coco(3, 3, 1, 2), label="tail", drawn=True),
        MaskWork(how="split", sources=(100_003,), segmentation=coco(4, 3, 1, 2)),
        MaskWork(how="added", segmentation=coco(6, 0), label="bird", points_xy=((6.5, 0.5),), seconds=2.5),
    ]
    work = Work(
        who=" Ana ", tool="page", masks=masks, rejected=(100_004,), finished=True, clicks=5, seconds=20
    )
    save = keep(store, start, work, created_utc=CREATED).save

    assert (save.number, save.who, save.made_by, save.clicks, save.finished) == (1, "Ana", "person", 5, True)
    rows = save.annotations
    assert [row["id"] for row in rows] == [100_000 + place for place in range(5)]
    assert [row["how"] for row in rows] == ["kept", "merged", "split", "split", "added"]
    assert [row["from"] for row in rows] == [[100_000], [100_001, 100_002], [100_003], [100_003], []]
    assert [row["made_by"] for row in rows] == ["automatic", *["person"] * 4]
    assert [row.get("label") for row in rows] == [None, "cat", "tail", "dog", "bird"]
    assert (rows[0]["predicted_iou"], rows[1]["area"], rows[1]["bbox"]) == (0.9, 9, [1, 1, 2, 2])
    assert dict(fates(rows, save.rejected)) == {"kept": 1, "added": 1, "merged": 1, "split": 2, "rejected": 1}


def test_confirming_one_by_one_makes_a_mask_the_persons(store: ObjectStore) -> None:
    start = begun(store, None, "cat")
    masks = [
        MaskWork(how="confirmed", sources=(100_000,), label="dog"),
        MaskWork(how="kept", sources=(100_001,), label=""),
    ]
    rows = keep(store, start, Work(who="Ana", tool="page", masks=masks), created_utc=CREATED).save.annotations
    assert [is_hand_made(row) for row in rows] == [True, False]
    assert [row.get("label") for row in rows] == ["dog", None]
    assert rows[0]["segmentation"] == start.rows[0]["segmentation"]
    again = begin(store, KEY, record=automatic("other", "masks", "now"), generation=2)
    assert (again.rows, again.base.saves, again.base.generation) == (rows, (1,), 2)
    kept = [MaskWork(how="kept", sources=(row["id"],)) for row in again.rows]
    work = Work(who="Ben", tool="page", masks=kept)
    later = keep(store, again, work, created_utc=CREATED).save
    assert [is_hand_made(row) for row in later.annotations] == [True, False], "Ana's stays a person's"


def test_two_people_on_one_picture_are_both_kept_and_the_second_is_told(store: ObjectStore) -> None:
    first, second = begun(store, None), begun(store, None)
    work = [MaskWork(how="kept", sources=(100_000,))]
    ana = keep(store, first, Work(who="Ana", tool="page", masks=work), created_utc=CREATED)
    assert not ana.is_beside
    ben = keep(
        store, second, Work(who="Ben", tool="page", masks=(), rejected=(100_000,)), created_utc=CREATED
    )
    assert ben.is_beside
    assert ben.standing.in_force == ana.save
    assert ben.standing.beside == (ben.save,)

    alone = begin(store, KEY, record=automatic(None), generation=1)
    assert alone.base.saves == (1,), "who was not shown the other covers it not"
    both = begin(store, KEY, record=automatic(None), generation=1, both=True)
    done = keep(store, both, Work(who="Ben", tool="page", masks=work), created_utc=CREATED)
    assert (done.is_beside, done.standing.beside) == (False, ())


def test_a_blank_picture_has_nothing_to_account_for(store: ObjectStore) -> None:
    start = begun(store, None, None, blank=True)
    assert (start.rows, start.base.column) == ((), None)
    masks = [MaskWork(how="added", segmentation=coco(0, 0))]
    kept = keep(store, start, Work(who="Ana", tool="page", masks=masks), created_utc=CREATED)
    assert kept.save.annotations[0]["made_by"] == "person"


def test_a_review_from_before_saves_is_where_one_goes_on(store: ObjectStore) -> None:
    old = automatic("cat", None)
    old["annotations"][0]["made_by"] = "person"
    old["review"] = {"by": "person", "mode": "given", "complete": True, "ignore": coco(5, 5, 1, 1)}
    start = begin(store, KEY, record=old, generation=1, column="review", blank=True)
    assert (start.finished, start.ignore) == (True, coco(5, 5, 1, 1))
    assert [row["made_by"] for row in start.rows] == ["person", "automatic"]


KEEP = MaskWork(how="kept", sources=(100_000,))


@pytest.mark.parametrize(
    ("masks", "rejected", "why"),
    [
        ([], (), "1 of the masks it was begun from are neither kept nor rejected: 100000"),
        ([KEEP], (100_000,), "100000 is both used and rejected"),
        ([KEEP, KEEP], (), "100000 is used twice"),
        ([KEEP, MaskWork(how="kept", sources=(7,))], (), "mask 7 is none of those it was begun from"),
        ([KEEP], (8,), "mask 8 is none of those"),
        ([KEEP, MaskWork(how="added", segmentation=coco(0, 0, 0, 0))], (), "without a pixel"),
        (
            [KEEP, MaskWork(how="added", segmentation={"size": [6, 7], "counts": "0Z1"})],
            (),
            "a mask of 6 x 7 pixels; the picture has 6 x 8",
        ),
        ([KEEP, MaskWork(how="added", segmentation={"size": [6, 8], "counts": "zz~"})], (), "run lengths"),
        ([KEEP, MaskWork(how="added", segmentation={"size": [6, 8]})], (), "counts"),
    ],
)
def test_what_does_not_fit_is_refused_whole(
    store: ObjectStore, masks: list[MaskWork], rejected: tuple[int, ...], why: str
) -> None:
    with pytest.raises(InputError, match=f"picture {KEY}: .*{why}"):
        keep(
            store,
            begun(store, None),
            Work(who="Ana", tool="page", masks=masks, rejected=rejected),
            created_utc=CREATED,
        )
    assert saved_numbers(store) == {}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"how": "drawn"}, "how='drawn' is unknown"),
        ({"how": "merged", "sources": (1,), "segmentation": {}}, "merged comes from 2 or more masks"),
        ({"how": "merged", "sources": (1, 1), "segmentation": {}}, "merged comes from 2 or more masks"),
        ({"how": "kept", "sources": (1,), "segmentation": {}}, "kept has no segmentation"),
        ({"how": "added"}, "added has a segmentation"),
        ({"how": "kept", "sources": (1,), "clicks": -1}, "clicks=-1"),
        ({"how": "kept", "sources": (1,), "seconds": float("nan")}, "seconds=nan"),
        ({"how": "kept", "sources": (1,), "label": "x" * 1001}, "length of label"),
        ({"how": "kept", "sources": (1,), "points_xy": ((float("inf"), 1.0),)}, "a point or box"),
    ],
)
def test_a_mask_that_says_what_cannot_be(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        MaskWork(**wrong)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"who": "  "}, "give a name"),
        ({"tool": ""}, "give a name"),
        ({"made_by": "automatic"}, "made_by='automatic' is unknown"),
        ({"seconds": -1.0}, "seconds=-1"),
        ({"who": "x" * 300}, "length of who"),
    ],
)
def test_a_save_says_who_and_how(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Work(**{"who": "Ana", "tool": "page", "masks": (), **wrong})


def test_what_is_kept_is_plain_json(store: ObjectStore) -> None:
    masks = [MaskWork(how="added", segmentation=coco(0, 0), box_xywh=(0.0, 0.0, 2.0, 2.0))]
    keep(store, begun(store), Work(who="Žofie", tool="page", masks=masks), created_utc=CREATED)
    found = json.loads(store.read(f"review/saves/{KEY}/000001.json"))
    assert (found["who"], found["base"]) == (
        "Žofie",
        {"column": "masks", "generation": 1, "saves": []},
    )
    assert found["annotations"][0]["given_box"] == [0.0, 0.0, 2.0, 2.0]
