"""Reviews through the page's addresses: opened, saved, saved again, by two people, and never lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from maskmill.pipeline.rle import Rle, decode, encode_mask
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.dataset.saves import saves_of, standing_of
from maskmill.storage.errors import OutOfSpace
from maskmill.workers.page.app import make_app
from maskmill.workers.page.serve import Server, own_port
from maskmill.workers.page.session import Session
from maskmill.workers.reviews.column import publish_saves
from tests.workers.page.conftest import PORT, SITE, TOKEN, Asked

KEY = "000000001"


def box(opened: dict[str, Any], left: int, top: int, side: int = 6) -> dict[str, Any]:
    """A square's run lengths, of the picture's size."""
    mask_HW = np.zeros((opened["image"]["height"], opened["image"]["width"]), np.bool_)
    mask_HW[top : top + side, left : left + side] = True
    return encode_mask(mask_HW).to_coco()


def kept(opened: dict[str, Any]) -> list[dict[str, Any]]:
    """All masks left as they are."""
    return [{"how": "kept", "sources": [row["id"]]} for row in opened["rows"]]


def sent(
    opened: dict[str, Any], masks: list[dict[str, Any]], who: str = "ana", **more: Any
) -> dict[str, Any]:
    """A save of a sitting that begins."""
    sitting = {"name": f"sitting-of-{who}", "number": 1, "last": None}
    return {
        "key": opened["key"],
        "who": who,
        "opening": opened["opening"],
        "sitting": sitting,
        "masks": masks,
        **more,
    }


def opened(page: Asked, who: str = "ana", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.post("api/review/open", {"key": KEY, "who": who, **more})
    return found


def test_a_sitting_is_one_account_whatever_is_taken_back(page: Asked) -> None:
    """Three saves, the second with a reject that the third takes back: all against the opening."""
    start = opened(page)
    assert start["saved_by"] is None and all(row["made_by"] == "automatic" for row in start["rows"])
    ids = [row["id"] for row in start["rows"]]
    confirmed = {"how": "confirmed", "sources": [ids[0]], "label": "bush"}
    added = {
        "how": "added",
        "segmentation": box(start, 3, 4),
        "clicks": 2,
        "seconds": 4.5,
        "points": [[5, 6]],
    }

    first = sent(start, [confirmed, *kept(start)[1:], added], seconds=9.0, clicks=2)
    assert page.post("api/review/save", first)["number"] == 1
    assert page.post("api/review/save", first)["number"] == 1  # the answer was lost, and it was sent again
    second = {**first, "masks": [confirmed, added], "rejected": ids[1:]}
    second["sitting"] = {**first["sitting"], "number": 2, "last": 1}
    assert page.post("api/review/save", second) == {"number": 2, "beside": False, "in_force_by": "ana"}
    third = {**first, "finished": True, "sitting": {**first["sitting"], "number": 3, "last": 2}}
    assert page.post("api/review/save", third)["number"] == 3

    saves = saves_of(page.published.store, KEY)
    assert [len(save.annotations) for save in saves] == [len(ids) + 1, 2, len(ids) + 1]
    newest = standing_of(page.published.store, KEY).in_force
    assert newest is not None and newest.number == 3 and newest.finished and newest.earlier == (1, 2)
    assert [row["made_by"] for row in newest.annotations] == [
        "person",
        *["automatic"] * (len(ids) - 1),
        "person",
    ]
    assert (newest.annotations[0]["label"], newest.seconds, newest.tool) == ("bush", 9.0, "page")
    assert np.array_equal(
        decode(Rle.from_coco(newest.annotations[-1]["segmentation"])), decode(Rle.from_coco(box(start, 3, 4)))
    )


def test_what_was_saved_is_what_opens_and_is_shown_next(page: Asked) -> None:
    start = opened(page)
    page.post(
        "api/review/save",
        sent(
            start,
            [{"how": "added", "segmentation": box(start, 1, 1)}],
            rejected=[row["id"] for row in start["rows"]],
            finished=True,
        ),
    )
    again = opened(page, "ben")
    assert (len(again["rows"]), again["finished"], again["saved_by"]) == (1, True, "ana")
    shown = page.get(f"api/pictures/{KEY}")
    assert shown["by"] == "people" and len(shown["annotations"]) == 1
    assert page.keys(made_by="person") == [KEY] and KEY not in page.keys(made_by="automatic")
    (card,) = page.pictures(made_by="person")
    assert (card["review"], card["masks"]) == ("reviewed", 1)
    assert KEY not in page.post("api/review/queue", {"sort": "key"})["keys"]
    assert len(page.post("api/review/queue", {"sort": "random", "seed": 3})["keys"]) == 9


def test_a_later_sitting_adds_to_what_masks_had_cost(page: Asked) -> None:
    start = opened(page)
    drawn = {"how": "added", "segmentation": box(start, 1, 1), "clicks": 3, "seconds": 5.0, "drawn": True}
    page.post("api/review/save", sent(start, [*kept(start), drawn]))
    again = opened(page)
    body = sent(again, [{**one, "seconds": 1.0} for one in kept(again)])
    body["sitting"] = {"name": "another", "number": 1, "last": None}
    page.post("api/review/save", body)
    row = standing_of(page.published.store, KEY).in_force
    assert row is not None
    last = row.annotations[-1]
    assert (last["clicks"], last["seconds"], last["drawn"], last["made_by"]) == (3, 6.0, True, "person")


def test_two_people_on_one_picture_are_told_and_both_are_kept(page: Asked) -> None:
    ana, ben = opened(page), opened(page, "ben")
    assert [one["who"] for one in ben["others"]] == ["ana"]
    assert [one["who"] for one in page.post("api/review/here", {"key": KEY, "who": "ana"})["others"]] == [
        "ben"
    ]
    assert not page.post("api/review/save", sent(ana, kept(ana)))["beside"]
    theirs = page.post(
        "api/review/save", sent(ben, [*kept(ben), {"how": "added", "segmentation": box(ben, 2, 2)}], "ben")
    )
    assert theirs["beside"] and theirs["in_force_by"] == "ana"

    told = opened(page, "ben")
    assert [one["who"] for one in told["beside"]] == ["ben"] and not told["beside"][0]["rows"]
    both = opened(page, "ben", both=True)
    assert len(both["beside"][0]["rows"]) == len(ana["rows"]) + 1 and both["opening"]["saves"] == [1, 2]
    body = sent(both, [*kept(both), {"how": "added", "segmentation": box(ben, 2, 2)}], "ben")
    body["sitting"] = {"name": "after-both", "number": 1, "last": None}
    assert not page.post("api/review/save", body)["beside"]
    standing = standing_of(page.published.store, KEY)
    assert standing.in_force is not None and standing.in_force.number == 3 and not standing.beside
    page.post("api/review/leave", {"key": KEY, "who": "ana"})
    assert not page.post("api/review/here", {"key": KEY, "who": "ben"})["others"]


def test_an_empty_picture_is_assisted_manual_where_nobody_saved(page: Asked) -> None:
    start = opened(page, blank=True)
    assert start["rows"] == [] and start["opening"]["column"] is None
    page.post("api/review/save", sent(start, [{"how": "added", "segmentation": box(start, 1, 1)}]))
    assert len(opened(page, blank=True)["rows"]) == 1


def test_a_picture_that_was_rejected_can_be_opened_if_it_can_be_seen(page: Asked) -> None:
    (black,) = page.keys(text="black.jpg")
    start = page.post("api/review/open", {"key": black, "who": "ana"})
    assert start["rows"] == [] and (start["image"]["width"], start["image"]["height"]) == (64, 48)
    body = {**sent(start, [{"how": "added", "segmentation": box(start, 1, 1)}]), "finished": True}
    assert page.post("api/review/save", body)["number"] == 1


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"masks": []}, 400, "neither kept nor rejected"),
        ({"rejected": [7]}, 400, "none of those"),
        ({"who": " "}, 400, "give a name"),
        ({"masks": [{"how": "kept", "sources": []}]}, 400, "comes from 1"),
        ({"masks": [{"how": "better", "sources": [1]}]}, 400, "better"),
        ({"seconds": -1}, 400, "seconds"),
        ({"seconds": "many"}, 422, "seconds"),
        ({"opening": {"generation": 9}}, 400, "generation"),
        ({"opening": {"generation": 1, "column": "other"}}, 400, "reload"),
        ({"key": "000000999"}, 500, "000000999"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence_and_nothing_is_kept(
    page: Asked, change: dict[str, Any], status: int, says: str
) -> None:
    start = opened(page)
    found = page.post("api/review/save", {**sent(start, kept(start)), **change}, status)
    assert says in found["error"]
    assert not saves_of(page.published.store, KEY)


def test_a_mask_of_another_size_or_without_a_pixel_is_refused(page: Asked) -> None:
    start = opened(page)
    for size, counts in (([4, 4], "0@"), ([48, 64], "PP3")):
        mask = {"how": "added", "segmentation": {"size": size, "counts": counts}}
        page.post("api/review/save", sent(start, [*kept(start), mask]), 400)
    assert not saves_of(page.published.store, KEY)


def test_a_page_that_was_opened_before_the_next_generation_saves_to_it(page: Asked) -> None:
    """The server was started again, and shows a generation that people's saves were published in."""
    start, other = opened(page), page.post("api/review/open", {"key": "000000002", "who": "ben"})
    page.post("api/review/save", {**sent(other, kept(other), "ben"), "key": "000000002"})
    published = publish_saves(page.published.store, created_utc="2026-11-27T00:00:00+00:00")
    assert published is not None and published.number == 2
    session = Session(
        page.published.store, published, person="ana", segmenter=SegmenterSettings(model="nano")
    )
    later = Asked(
        TestClient(make_app(session, token=TOKEN, port=PORT), base_url=SITE), session, page.published
    )
    ids = [row["id"] for row in start["rows"]]
    body = sent(start, [{"how": "confirmed", "sources": ids[:1]}], rejected=ids[1:])
    assert later.post("api/review/save", body) == {"number": 1, "beside": False, "in_force_by": "ana"}
    (save,) = saves_of(page.published.store, KEY)
    assert (save.base.generation, save.rejected) == (1, tuple(ids[1:]))
    later.client.close()
    session.close()


def test_a_save_whose_answer_never_came_is_not_beside_the_next(page: Asked) -> None:
    """The page was closed while it was on its way, and all was sent again, as the sitting's second save."""
    start = opened(page)
    page.post("api/review/save", sent(start, kept(start)))
    body = {**sent(start, kept(start)), "finished": True}
    body["sitting"] = {"name": "sitting-of-ana", "number": 2, "last": None}
    assert page.post("api/review/save", body) == {"number": 2, "beside": False, "in_force_by": "ana"}


def test_what_a_full_disk_refuses_is_kept_once_there_is_room(
    page: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*anything: object) -> None:
        raise OutOfSpace("no space left on the disk")

    kind = type(page.published.store)
    with monkeypatch.context() as patched:
        patched.setattr(kind, "put", full)
        patched.setattr(kind, "put_if_absent", full)
        start = opened(page)  # a claim is a hint: who can't leave one reviews all the same
        body = sent(start, kept(start))
        assert "no space left" in page.post("api/review/save", body, 500)["error"]
    assert page.post("api/review/save", body)["number"] == 1


def test_a_dataset_that_was_moved_away_gets_no_save_and_leaves_none_where_it_was(page: Asked) -> None:
    start, root = opened(page), Path(page.published.store.root)
    away = root.rename(root.with_name("elsewhere"))
    body = sent(start, kept(start))
    assert "was it moved?" in page.post("api/review/save", body, 500)["error"]
    assert not root.exists()
    away.rename(root)
    assert page.post("api/review/save", body)["number"] == 1


def test_what_comes_next_is_read_ahead_and_claimed_by_nobody(page: Asked) -> None:
    ahead = opened(page, ahead=True)
    assert ahead["saves"] == [] and ahead["rows"]
    ben = page.post("api/review/here", {"key": KEY, "who": "ben"})
    assert ben == {"others": [], "saves": []}
    page.post("api/review/save", sent(ahead, kept(ahead)))
    assert page.post("api/review/here", {"key": KEY, "who": "ben"})["saves"] == [1]


def test_a_dataset_has_a_port_of_its_own_until_another_page_has_it(page: Asked) -> None:
    first, second = Server(page.session, port=None), Server(page.session, port=None)
    wanted = f":{own_port(page.session.identity)}/"
    assert wanted in first.address and wanted not in second.address
    for one in (first, second):
        one.close()


def test_a_summary_counts_the_last_save_of_each_sitting(page: Asked) -> None:
    start = opened(page)
    ids = [row["id"] for row in start["rows"]]
    body = sent(start, [{"how": "confirmed", "sources": [one], "seconds": 2.0} for one in ids], seconds=8.0)
    page.post("api/review/save", body)
    last = {**body["sitting"], "number": 2, "last": 1}
    page.post("api/review/save", {**body, "sitting": last, "seconds": 10.0, "finished": True})
    found = page.get("api/review/summary")
    assert (found["images"], found["finished"], found["left"], found["begun"]) == (10, 1, 9, 0)
    assert found["total"]["seconds"] == 10.0 and found["total"]["masks"] == len(ids)
    assert found["total"]["masks_an_hour"] == pytest.approx(360 * len(ids))
    assert found["total"]["fates"] == [{"how": "confirmed", "masks": len(ids), "seconds_a_mask": 2.0}]
    assert [one["who"] for one in found["people"]] == ["ana"] and found["open"][0]["who"] == "ana"


def test_two_who_saw_nothing_of_each_other_are_compared(page: Asked) -> None:
    """A square of 36 px, and one a column further: 30 px in common of 42; one mask has no partner."""
    ana, ben = opened(page, blank=True), opened(page, "ben", blank=True)
    squares = [{"how": "added", "segmentation": box(ana, left, 4)} for left in (3, 30)]
    page.post("api/review/save", sent(ana, squares, finished=True))
    shifted = [{"how": "added", "segmentation": box(ben, 4, 4)}]
    page.post("api/review/save", sent(ben, shifted, "ben", finished=True))
    (found,) = page.get("api/review/summary")["agreement"]
    assert (found["people"], found["pictures"]) == (["ana", "ben"], 1)
    assert found["matched"] == pytest.approx(2 / 3) and found["mean_iou"] == pytest.approx(30 / 42)

    # Who has seen both agrees with both, which says nothing
    both = opened(page, "eve", both=True)
    page.post("api/review/save", sent(both, kept(both), "eve", finished=True))
    assert [one["people"] for one in page.get("api/review/summary")["agreement"]] == [["ana", "ben"]]
