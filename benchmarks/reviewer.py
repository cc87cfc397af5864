"""A new person at the page, by a script: what docs/browse.md says, by pointer and keys, seen by the truth.

    masks that are there   Tab chooses the next undecided one; A where it meets a true mask well, X where
                           it meets none, and a click or two of the tool Click where it is nearly right
    what is missing        C, a click into the object, up to two more on what is wrong, A
    the end                Shift Enter

It knows nothing of the page's code but what is on the screen, and which mask is chosen.

Shapes: N true masks of a picture, H x W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from selenium.webdriver.common.keys import Keys

from maskmill.pipeline.evaluate.clicks import error_click
from maskmill.pipeline.rle import Rle, decode
from tests.workers.page.in_browser import Hand, inside

GOOD_IOU, NEAR_IOU = 0.75, 0.4
MOST_CLICKS = 3

Bools = NDArray[np.bool_]


@dataclass
class Tally:
    """What was done on the pictures so far."""

    pictures: int = 0
    accepted: int = 0
    rejected: int = 0
    corrected: int = 0
    added: int = 0
    clicks: int = 0
    seconds: float = 0.0
    next_s: list[float] = field(default_factory=list)

    @property
    def masks(self) -> int:
        """Decided on, one way or another."""
        return self.accepted + self.rejected + self.corrected + self.added


class Reviewer:
    """Reviews the pictures of a queue, one after the other.

    Args:
        hand: at the page.
        truths: bool[N, H, W] by the picture's file name.
        most: masks decided on a picture, the model's and added ones each; the rest is left alone.
        shots: where screenshots go; None for none.
    """

    def __init__(
        self, hand: Hand, truths: Mapping[str, Bools], *, most: int, shots: Path | None = None
    ) -> None:
        self._hand, self._truths, self._most, self._shots = hand, truths, most, shots
        self.tally = Tally()

    def work(self, pictures: int) -> Iterator[str]:
        """Reviews the next pictures of the queue; gives each one's key after its end."""
        hand = self._hand
        hand.go("review")
        key = self._open("")
        for place in range(pictures):
            began = time.monotonic()
            self._one(place)
            self.tally.pictures += 1
            self.tally.seconds += time.monotonic() - began
            finished = time.monotonic()
            hand.shift(Keys.ENTER)
            if place + 1 < pictures:
                following = self._open(key)
                self.tally.next_s.append(time.monotonic() - finished)
            else:
                hand.browser.implicitly_wait(0)
                self._ended(key)
                following = ""
            yield key
            key = following

    def shot(self, name: str) -> None:
        """Keeps what the screen shows."""
        if self._shots is not None:
            self._shots.mkdir(parents=True, exist_ok=True)
            self._hand.browser.save_screenshot(str(self._shots / f"{name}.png"))

    def _open(self, before: str) -> str:
        """Waits for a picture that is another than the one before."""
        hand, until = self._hand, time.monotonic() + 120
        while time.monotonic() < until:
            key = str(hand.js("document.body.dataset.ready || ''"))
            if key and key != before:
                return key
            time.sleep(0.005)
        raise TimeoutError(f"no picture came after {before or 'the start'}: {hand.text('said')}")

    def _ended(self, key: str) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and self._hand.js("document.body.dataset.ready || ''") == key:
            time.sleep(0.02)

    def _one(self, place: int) -> None:
        hand = self._hand
        name = str(hand.js("maskmill.work.opened.image.source")).rpartition("/")[2]
        truth_NHW = self._truths[name]
        self.shot(f"{place + 1:02d}-opened")
        met = self._decide(truth_NHW)
        self.shot(f"{place + 1:02d}-decided")
        self._add([mask_HW for mask_HW, is_met in zip(truth_NHW, met, strict=True) if not is_met], place)
        self.shot(f"{place + 1:02d}-done")

    def _decide(self, truth_NHW: Bools) -> list[bool]:
        """Accepts, corrects or rejects the masks that are there; which true masks these meet."""
        hand, met = self._hand, [False] * len(truth_NHW)
        undecided = len([one for one in hand.masks() if one["how"] == "kept"])
        hand.keys("v")
        for _ in range(min(undecided, self._most)):
            if not hand.js("maskmill.drawing.chosen.length"):
                hand.keys(Keys.TAB)
            mask_HW = self._chosen()
            ious = [_iou(mask_HW, one) for one in truth_NHW]
            best = int(np.argmax(ious)) if ious else -1
            if best >= 0 and ious[best] >= GOOD_IOU and not met[best]:
                hand.keys("a")
                self.tally.accepted += 1
                met[best] = True
            elif best >= 0 and ious[best] >= NEAR_IOU and not met[best]:
                self._correct(mask_HW, truth_NHW[best])
                met[best] = True
            else:
                hand.keys("x")
                self.tally.rejected += 1
        return met

    def _correct(self, mask_HW: Bools, truth_HW: Bools) -> None:
        """A click or two with the mask chosen, then accepts it."""
        hand = self._hand
        hand.keys("c")
        self._clicks(truth_HW, mask_HW)
        hand.keys("a", "v")
        self.tally.corrected += 1

    def _add(self, missing: list[Bools], place: int) -> None:
        hand = self._hand
        hand.keys(Keys.ESCAPE, "c")
        for number, truth_HW in enumerate(sorted(missing, key=lambda one: -int(one.sum()))[: self._most]):
            hand.click(*inside(truth_HW))
            self.tally.clicks += 1
            self._clicks(truth_HW, self._drawn())
            if number == 0:
                self.shot(f"{place + 1:02d}-clicked")
            hand.keys("a")
            self.tally.added += 1

    def _clicks(self, truth_HW: Bools, answer_HW: Bools) -> None:
        hand = self._hand
        for _ in range(MOST_CLICKS - 1):
            click = error_click(answer_HW, truth_HW)
            if click is None or _iou(answer_HW, truth_HW) >= GOOD_IOU:
                return
            hand.click(click[0], click[1], shift=not click[2])
            self.tally.clicks += 1
            answer_HW = self._drawn()

    def _drawn(self) -> Bools:
        """What the segmenter answered."""
        return decode(Rle.from_coco(self._hand.draft()["segmentation"]))

    def _chosen(self) -> Bools:
        """The chosen mask, as the screen shows it."""
        height, width, runs = self._hand.js(
            "[maskmill.work.height, maskmill.work.width, Array.from(maskmill.drawing.chosen[0].runs)]"
        )
        flat = np.zeros(height * width, np.bool_)
        for start, end in zip(runs[::2], runs[1::2], strict=True):
            flat[start:end] = True
        return flat.reshape(width, height).T


def _iou(one_HW: Bools, other_HW: Bools) -> float:
    return float((one_HW & other_HW).sum() / max(1, (one_HW | other_HW).sum()))


def truths_of(coco: Mapping[str, Any], size: Mapping[str, tuple[int, int]]) -> dict[str, Bools]:
    """True masks by file name, crowds left out.

    Args:
        coco: an annotations' document, polygons or run lengths.
        size: height and width by file name, as pictures are stored.
    """
    from pycocotools import mask as tools

    names = {image["id"]: image["file_name"] for image in coco["images"]}
    found: dict[str, list[Bools]] = {name: [] for name in names.values()}
    for row in coco["annotations"]:
        name = names[row["image_id"]]
        if name not in size or row.get("iscrowd"):
            continue
        shape = row["segmentation"]
        height, width = size[name]
        if isinstance(shape, list):
            shape = tools.merge(tools.frPyObjects(shape, height, width))
        elif isinstance(shape["counts"], list):
            shape = tools.frPyObjects(shape, height, width)
        mask_HW = tools.decode(shape).astype(np.bool_)
        if mask_HW.any():
            found[name].append(mask_HW)
    return {name: np.stack(some) if some else np.zeros((0, 1, 1), np.bool_) for name, some in found.items()}
