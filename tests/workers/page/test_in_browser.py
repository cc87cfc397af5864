"""The page in headless Chromium: looked through, clicked as the oracle clicks, reviewed by keys, by two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.evaluate.clicks import error_click
from maskmill.pipeline.evaluate.oracle import correct
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import Rle, decode, encode_mask
from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.verify.head import Verdicts
from maskmill.pipeline.verify.verifier import PictureVerdicts
from maskmill.storage.dataset.saves import saves_of, standing_of
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.foreign.images.codec import decode_image
from tests.flows.browsing import browser, shown, text
from tests.workers.page.in_browser import Hand, inside, publish_scenes, serving
from tests.workers.published import Published, make_spec, with_verdicts

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

FIRST, SECOND, THIRD = "000000001", "000000002", "000000003"


@dataclass(frozen=True)
class Open:
    """A browser at the page of a dataset of scenes."""

    hand: Hand
    store: ObjectStore
    jpegs: dict[str, bytes]
    truths: dict[str, np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]]


@pytest.fixture
def at(tmp_path: Path, browser: webdriver.Chrome) -> Iterator[Open]:
    store, generation, scenes = publish_scenes(tmp_path)
    with serving(store, generation) as (server, session):
        jpegs = {key: session.shown.jpeg(key) for key in scenes}
        truths = {key: scene.masks_NHW for key, scene in scenes.items()}
        yield Open(Hand(browser, server.address), store, jpegs, truths)
        browser.get("about:blank")


def test_the_oracles_clicks_as_clicks_in_the_page_give_the_oracles_masks(at: Open) -> None:
    """What `review --mode assisted` makes of a picture, made by a pointer, bit for bit."""
    hand, nano = at.hand, load_segmenter(SegmenterSettings(model="nano"))
    truths_NHW = at.truths[FIRST]
    truth = Truth(FIRST, decode_image(at.jpegs[FIRST]), truths_NHW)
    wanted = correct(nano, truth, wanted_iou=0.9, most_clicks=4, draw_rest=False)

    hand.review(FIRST, "?start=empty")
    for truth_HW in truths_NHW:
        x, y = inside(truth_HW)
        hand.click(x, y)
        best_iou, kept_clicks = -1.0, 0
        for number in range(1, 5):
            mask_HW = decode(Rle.from_coco(hand.draft()["segmentation"]))
            iou = float((mask_HW & truth_HW).sum() / (mask_HW | truth_HW).sum())
            if iou > best_iou:
                best_iou, kept_clicks = iou, number
            click = error_click(mask_HW, truth_HW)
            if best_iou >= 0.9 or number == 4 or click is None:
                break
            hand.click(click[0], click[1], shift=not click[2])
        for _ in range(number - kept_clicks):
            hand.keys("z")  # a later click spoiled the mask: a person takes it back
            hand.draft()
        hand.keys("a")
    hand.shift(Keys.ENTER)
    hand.ready(SECOND)

    save = standing_of(at.store, FIRST).in_force
    assert save is not None and save.finished and save.base.column is None
    assert [row["segmentation"] for row in save.annotations] == [one.mask.to_coco() for one in wanted]
    assert {row["how"] for row in save.annotations} == {"added"} and save.seconds > 0
    assert hand.complaints() == []


def test_accept_reject_merge_split_brush_label_undo_and_reload(at: Open) -> None:
    hand = at.hand
    hand.review(FIRST)
    start = hand.masks()
    assert len(start) >= 3 and {one["how"] for one in start} == {"kept"}

    # Accept one, reject one: the next is chosen each time, the largest first
    hand.keys("v", Keys.TAB)
    hand.keys("a", "x")
    assert [one["how"] for one in hand.masks()].count("confirmed") == 1
    assert len(hand.masks()) == len(start) - 1
    hand.keys("z")
    assert len(hand.masks()) == len(start)
    hand.keys("y")
    hand.saved()
    (rejected,) = saves_of(at.store, FIRST)[-1].rejected

    # Merge two, split them again
    undecided = "maskmill.work.masks.filter((mask) => mask.how === 'kept').map((mask) => mask.id)"
    hand.js(f"maskmill.drawing.choose({undecided}.slice(0, 2))")
    before = hand.masks()
    hand.keys("m")
    assert len(hand.masks()) == len(before) - 1
    hand.keys("s")
    assert len(hand.masks()) > len(before) - 1
    hand.keys("z")

    # Label the merged one, paint on it, erase from it
    hand.keys("l")
    hand.browser.find_element(By.NAME, "label").send_keys("bush", Keys.ENTER)
    merged = next(one for one in hand.masks() if one["label"] == "bush")
    hand.keys("d", "]", "]")
    hand.drag([(10, 10), (60, 60), (110, 20)])
    painted = next(one for one in hand.masks() if one["label"] == "bush")
    assert painted["area"] > merged["area"] and painted["drawn"]
    hand.keys("e")
    hand.drag([(10, 10), (60, 60)])
    assert next(one for one in hand.masks() if one["label"] == "bush")["area"] < painted["area"]

    # A polygon is a new mask
    hand.keys(Keys.ESCAPE, "p")
    for corner in ((20, 20), (90, 20), (90, 90), (20, 90)):
        hand.click(*corner)
    hand.keys(Keys.ENTER, Keys.ENTER)
    assert hand.masks()[-1]["area"] == pytest.approx(70 * 70, abs=140)  # corners lie on the screen's pixels
    hand.saved()
    here = hand.masks()

    # All of it is there after a reload, and in the save
    hand.review(FIRST)
    assert [one["area"] for one in hand.masks()] == [one["area"] for one in here]
    save = standing_of(at.store, FIRST).in_force
    assert save is not None and save.rejected == (rejected,)
    assert sorted(row["how"] for row in save.annotations if row["how"] != "kept") == [
        "added",
        "confirmed",
        "merged",
    ]
    assert [row["label"] for row in save.annotations if "label" in row] == ["bush"]
    assert hand.complaints() == []


def test_two_people_on_one_picture_are_told_and_see_both(at: Open, tmp_path: Path) -> None:
    ana = at.hand
    ana.review(SECOND)
    ana.browser.switch_to.new_window("window")
    ben = Hand(ana.browser, ana.address)
    ben.go("browse")
    name = ben.browser.find_element(By.ID, "person")
    shown(ben.browser, lambda page: name.get_attribute("value") == "ana")
    name.send_keys(Keys.CONTROL, "a", Keys.NULL, "ben", Keys.ENTER)
    ben.review(SECOND)
    assert "ana has this picture open too" in ben.text()

    # Both make something of it; the later one is told
    first, second = ana.browser.window_handles
    ana.browser.switch_to.window(first)
    ana.js("document.getElementById('person').value = 'ana'")
    ana.keys("v", Keys.TAB, "a")
    ana.saved()
    ben.browser.switch_to.window(second)
    ben.keys("p")
    for corner in ((20, 20), (90, 20), (90, 90), (20, 90)):
        ben.click(*corner)
    ben.keys(Keys.ENTER, Keys.ENTER)
    ben.saved()
    assert "ana saved this picture since you opened it" in ben.text()
    standing = standing_of(at.store, SECOND)
    assert standing.in_force is not None and standing.in_force.who == "ana"
    assert [save.who for save in standing.beside] == ["ben"]

    # Ben looks at both, and takes his own mask over
    ben.browser.find_element(By.LINK_TEXT, "See both").click()
    shown(ben.browser, lambda page: "Also saved by ben" in text(page))
    next(one for one in ben.browser.find_elements(By.TAG_NAME, "button") if "of theirs" in one.text).click()
    ben.saved()
    standing = standing_of(at.store, SECOND)
    assert standing.in_force is not None and not standing.beside
    assert {row["how"] for row in standing.in_force.annotations} == {"kept", "added"}


def test_a_stranger_looks_through_the_grid_and_at_a_picture(at: Open) -> None:
    hand = at.hand
    hand.go("browse")
    shown(hand.browser, lambda page: len(page.find_elements(By.CSS_SELECTOR, ".card")) == 3)
    loaded = "[...document.querySelectorAll('.card img')].every((one) => one.naturalWidth > 0)"
    shown(hand.browser, lambda page: page.execute_script(f"return {loaded}"))
    hand.browser.find_element(By.NAME, "text").send_keys("1.jpg", Keys.ENTER)
    shown(hand.browser, lambda page: len(page.find_elements(By.CSS_SELECTOR, ".card")) == 1)
    assert "text=1.jpg" in hand.browser.current_url
    hand.browser.refresh()
    card = shown(hand.browser, lambda page: page.find_element(By.CSS_SELECTOR, ".card"))
    card.click()
    hand.ready(SECOND)
    hand.click(64, 64)
    assert "The chosen mask" in hand.text() and "predicted IoU" in hand.text()
    hand.keys(Keys.ESCAPE, Keys.ESCAPE)
    shown(hand.browser, lambda page: page.find_elements(By.CSS_SELECTOR, ".card"))
    hand.go("browse?where=nosuch%20%3E%201")
    shown(hand.browser, lambda page: "Referenced column" in text(page))
    hand.go("summary")
    shown(hand.browser, lambda page: "Nobody has reviewed" in text(page))


def test_what_a_verifier_holds_for_unexplained_is_shown_by_a_key(
    tmp_path: Path, browser: webdriver.Chrome
) -> None:
    """Orange where the verdict says so, and nowhere else; with a legend, and away again."""

    def upper_left(image: AnnotatedImage) -> PictureVerdicts:
        map_RC = np.zeros((32, 32), np.float32)
        map_RC[:16, :16] = 1
        ones_N = np.ones(len(image.annotations), np.float32)
        return PictureVerdicts(Verdicts(ones_N, ones_N), 0.25, map_RC, True)

    store, generation, _ = publish_scenes(tmp_path)
    spec = make_spec(tmp_path / "dataset")
    judged = with_verdicts(Published(store, generation, tmp_path / "inputs", spec), upper_left)
    with serving(store, judged.generation) as (server, _):
        hand = Hand(browser, server.address)
        hand.go(f"picture/{FIRST}")
        hand.ready(FIRST)
        assert "share found" in hand.text() and "0.25" in hand.text()
        _is_heated_by(lambda: hand.keys("u"), hand)
        hand.review(FIRST)
        hand.keys(Keys.ESCAPE)
        _is_heated_by(lambda: hand.shift("u"), hand)

        # Of an empty picture's masks nothing was said
        hand.review(SECOND, "?start=empty")
        assert "Unlabelled" in hand.text("tools") and "Unexplained" not in hand.text("tools")
        assert not hand.complaints()


def _is_heated_by(press: Callable[[], None], hand: Hand) -> None:
    """Keys turn the picture's upper left orange, and nothing else, under a legend; pressed again, back."""

    def colours() -> list[list[int]]:
        pixel = (
            "(([x, y]) => { const v = maskmill.view, r = v.ratio;"
            " const one = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });"
            " one.drawImage(v.context.canvas, -(v.left + x * v.scale) * r, -(v.top + y * v.scale) * r);"
            " return [...one.getImageData(0, 0, 1, 1).data] })(arguments[0])"
        )
        hand.js("maskmill.view.drawNow()")
        return [hand.js(pixel, place) for place in ([20, 20], [100, 100])]

    open_before, rest_before = colours()
    legend = hand.browser.find_element(By.CSS_SELECTOR, "#tools .legend")
    assert not legend.is_displayed()
    press()
    assert legend.is_displayed() and "something without a mask" in legend.text
    open_after, rest_after = colours()
    assert rest_after == rest_before
    before, after = (
        sum(abs(a - b) for a, b in zip(one, (255, 92, 0), strict=False)) for one in (open_before, open_after)
    )
    assert after < 0.3 * before + 5
    press()
    assert colours() == [open_before, rest_before] and not legend.is_displayed()


def test_masks_are_the_same_in_the_browser_as_in_python(at: Open) -> None:
    """Run lengths there and back, pieces, holes and a union, by the page's own code."""
    rng = np.random.default_rng(2)
    noise_HW = np.kron(rng.random((9, 7)) > 0.6, np.ones((5, 6), np.bool_))
    some = [noise_HW, np.zeros((45, 42), np.bool_), np.ones((45, 42), np.bool_), at.truths[FIRST][0]]
    hand = at.hand
    hand.go("browse")
    shown(hand.browser, lambda page: page.find_elements(By.CSS_SELECTOR, ".card"))
    code = (
        "const [given, done] = arguments; import(new URL('static/rle.js', location.href)).then((rle) => done("
        "JSON.stringify(given.map((one) => { const [h, w] = one.size, runs = rle.runsOf(one); return {"
        "again: rle.segmentationOf(runs, h, w).counts, area: rle.areaOf(runs), "
        "pieces: rle.piecesOf(runs, h, false).length, filled: rle.areaOf(rle.filled(runs, h, w)), "
        "rest: rle.areaOf(rle.rest(runs, h, w)), "
        "all: rle.areaOf(rle.union(runs, rle.rest(runs, h, w)))}; }))))"
    )
    given = [encode_mask(mask).to_coco() for mask in some]
    found = json.loads(hand.browser.execute_async_script(code, given))
    from scipy import ndimage

    for mask_HW, coco, one in zip(some, given, found, strict=True):
        assert one["again"] == coco["counts"]
        assert (one["area"], one["rest"], one["all"]) == (mask_HW.sum(), (~mask_HW).sum(), mask_HW.size)
        assert one["pieces"] == ndimage.label(mask_HW)[1]
        assert one["filled"] == ndimage.binary_fill_holes(mask_HW).sum()
