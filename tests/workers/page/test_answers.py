"""The segmenter behind the page: the oracle's clicks get the oracle's masks, and clicks are never lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

from maskmill.pipeline.evaluate import oracle
from maskmill.pipeline.evaluate.clicks import error_click
from maskmill.pipeline.evaluate.oracle import Corrected, correct
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import decode
from maskmill.pipeline.scenes.scenes import Scene, generate_scene
from maskmill.pipeline.segmenters import interactive, load_segmenter
from maskmill.pipeline.segmenters.base import ImageEmbedding, Segmenter
from maskmill.pipeline.segmenters.interactive import Clicks, answer_clicks
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.train.prompts import centre_point
from maskmill.workers.page.answers import Answers

SCENES = {f"{seed}": seed for seed in (3, 4, 5)}
PLACES = ((225, 120), (330, 330))
"""Of ellipses on the photograph: x, y in px."""


class Pictures:
    """Scenes, and what was asked of them."""

    def __init__(self, kept: dict[str, ImageEmbedding] | None = None) -> None:
        self.seen: list[str] = []
        self._kept = kept or {}

    def pixels(self, key: str) -> NDArray[np.uint8]:
        self.seen.append(key)
        return scene(key).image

    def kept(self, key: str) -> ImageEmbedding | None:
        return self._kept.get(key)


def scene(key: str) -> Scene:
    return generate_scene(SCENES[key], 128)


@pytest.fixture(scope="module")
def nano() -> Segmenter:
    return load_segmenter(SegmenterSettings(model="nano"))


@pytest.fixture
def answers(nano: Segmenter) -> Iterator[tuple[Answers, Pictures]]:
    pictures = Pictures()
    made = Answers(lambda: nano, pictures)
    yield made, pictures
    made.close()


def clicked(
    answers: Answers, key: str, truth_HW: NDArray[np.bool_], wanted_iou: float, most: int
) -> Corrected:
    """What a person makes who clicks as the oracle does, one click after the other, in the page."""
    x, y = centre_point(truth_HW)
    points, labels = [(float(x), float(y))], [1]
    best, best_iou, given = None, -1.0, 1
    for number in range(1, most + 1):
        found = answers.answer(key, Clicks(tuple(points), tuple(labels)))
        mask_HW = decode(found.mask)
        iou = float((mask_HW & truth_HW).sum() / max(1, (mask_HW | truth_HW).sum()))
        if iou > best_iou:
            best, best_iou = found.mask, iou
        click = error_click(mask_HW, truth_HW)
        if best_iou >= wanted_iou or number == most or click is None:
            break
        points.append((float(click[0]), float(click[1])))
        labels.append(click[2])
        given += 1
    assert best is not None
    return Corrected(best, given, best_iou, False, points[0])


@pytest.mark.parametrize("key", sorted(SCENES))
def test_the_oracles_clicks_one_by_one_give_the_oracles_masks(
    nano: Segmenter, answers: tuple[Answers, Pictures], key: str
) -> None:
    """Bit for bit, though the oracle clicks on all masks of a picture together."""
    found = scene(key)
    truth = Truth(key, found.image, found.masks_NHW)
    wanted = correct(nano, truth, wanted_iou=0.9, most_clicks=6, draw_rest=False)
    assert sum(one.clicks for one in wanted) > len(wanted)
    for one, mask_HW in zip(wanted, found.masks_NHW, strict=True):
        mine = clicked(answers[0], key, mask_HW, 0.9, 6)
        assert (mine.mask, mine.clicks) == (one.mask, one.clicks)


@pytest.mark.parametrize("masks", [1, 2])
def test_on_a_photograph_too_with_several_threads(
    nano: Segmenter, monkeypatch: pytest.MonkeyPatch, masks: int
) -> None:
    """Logits to the last bit: on a photograph pixels lie so near the threshold that the last digits show."""
    photograph = skimage.data.astronaut()
    y_H1, x_1W = np.ogrid[:512, :512]
    truths_NHW = np.stack([((x_1W - x) / 60) ** 2 + ((y_H1 - y) / 75) ** 2 < 1 for x, y in PLACES[:masks]])
    by_oracle, in_page = (recorded(monkeypatch, module) for module in (oracle, interactive))

    own = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        truth, (kept,) = Truth("a", photograph, truths_NHW), nano.embed([photograph])
        wanted = correct(nano, truth, most_clicks=3, draw_rest=False)
        made = Answers(lambda: nano, Pictures({"a": kept}))
        mine = [clicked(made, "a", mask_HW, 0.9, 3) for mask_HW in truths_NHW]
        made.close()
    finally:
        torch.set_num_threads(own)
    assert [(one.mask, one.clicks) for one in mine] == [(one.mask, one.clicks) for one in wanted]
    assert len(by_oracle) == sum(one.clicks for one in wanted) > masks and by_oracle == in_page


def recorded(monkeypatch: pytest.MonkeyPatch, module: Any) -> dict[Clicks, bytes]:
    """What a module's clicks are answered with from now on: logits by clicks."""
    found: dict[Clicks, bytes] = {}

    def answer(held: Any, clicks: Clicks, before: Any, *, threshold: float) -> interactive.Clicked:
        answered = answer_clicks(held, clicks, before, threshold=threshold)
        found[clicks] = answered.logits_1hw.numpy().tobytes()
        return answered

    monkeypatch.setattr(module, "answer_clicks", answer)
    return found


def test_a_server_that_lost_everything_gives_the_same_answer(nano: Segmenter) -> None:
    clicks = Clicks(((40.0, 50.0), (60.0, 70.0), (20.0, 90.0)), (1, 1, 0))
    before = Answers(lambda: nano, Pictures())
    for number in (1, 2, 3):
        step = before.answer("3", Clicks(clicks.points[:number], clicks.labels[:number]))
    after = Answers(lambda: nano, Pictures())
    assert after.answer("3", clicks).mask == step.mask
    before.close()
    after.close()


def test_a_picture_is_embedded_once_and_ahead(answers: tuple[Answers, Pictures]) -> None:
    made, pictures = answers
    made.prepare("3")
    made.prepare("4")
    for x in (30.0, 40.0, 50.0):
        made.answer("3", Clicks(((x, 40.0),), (1,)))
    made.answer("4", Clicks(((30.0, 40.0),), (1,)))
    assert pictures.seen == ["3", "4"]


def test_a_kept_embedding_is_read_instead(nano: Segmenter) -> None:
    (kept,) = nano.embed([scene("3").image])
    pictures = Pictures({"3": kept})
    made = Answers(lambda: nano, pictures)
    other = Answers(lambda: nano, Pictures())
    clicks = Clicks(((40.0, 50.0),), (1,))
    assert made.answer("3", clicks).mask == other.answer("3", clicks).mask
    assert pictures.seen == []
    made.close()
    other.close()


def test_a_first_click_has_three_answers_a_box_one(answers: tuple[Answers, Pictures]) -> None:
    made, _ = answers
    three = [made.answer("3", Clicks(((64.0, 64.0),), (1,), choice=choice)) for choice in range(4)]
    assert three[0].outputs == 3 and three[3].mask == three[0].mask
    ious = [one.predicted_iou for one in three[:3]]
    assert ious == sorted(ious, reverse=True)
    assert len({one.mask for one in three[:3]}) == 3
    box = made.answer("3", Clicks(box=(20.0, 20.0, 90.0, 90.0)))
    more = made.answer("3", Clicks(((64.0, 64.0),), (0,), (20.0, 20.0, 90.0, 90.0)))
    assert box.outputs == 1 and more.mask != box.mask


def test_a_picture_that_could_not_be_read_is_tried_again(nano: Segmenter) -> None:
    class Flaky(Pictures):
        def pixels(self, key: str) -> NDArray[np.uint8]:
            if not self.seen:
                self.seen.append("failed")
                raise OSError("the store was away")
            return super().pixels(key)

    made = Answers(lambda: nano, Flaky())
    clicks = Clicks(((40.0, 50.0),), (1,))
    with pytest.raises(OSError, match="away"):
        made.answer("3", clicks)
    assert made.answer("3", clicks).outputs == 3
    made.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing was clicked"),
        ({"points": ((1.0, 1.0),), "labels": ()}, "give each point"),
        ({"points": ((1.0, 1.0),), "labels": (2,)}, "give each point"),
        ({"points": ((1.0, 1.0),), "labels": (0,)}, "on the mask"),
        ({"box": (0.0, 0.0, 1.0, 1.0), "choice": -1}, "at least 0"),
    ],
)
def test_clicks_that_ask_for_nothing_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Clicks(**given)  # type: ignore[arg-type]
