"""The oracle against a segmenter that paints discs: easy objects take a click, hard ones are drawn."""

from __future__ import annotations

import numpy as np

from maskmill.pipeline.evaluate.oracle import correct, missing_from
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import decode, encode_mask
from tests.pipeline.evaluate.test_clicks import SIZE, Brush, disc


def picture(*masks: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Truth:
    return Truth("a", np.zeros((SIZE, SIZE, 3), np.uint8), np.stack(masks))


def test_clicks_are_counted_until_the_mask_is_good() -> None:
    easy, double = disc(9, 9, 3.0), disc(7, 20, 4.0) | disc(24, 20, 4.0)
    got = correct(Brush(), picture(easy, double), wanted_iou=0.9, most_clicks=20)
    assert [one.clicks for one in got] == [1, 2]
    assert all(one.iou >= 0.9 and not one.drawn for one in got)
    assert got[0].point_xy == (9.0, 9.0)


def test_what_clicks_cannot_do_is_drawn_or_kept_as_it_came() -> None:
    frame = np.ones((SIZE, SIZE), np.bool_)
    frame[3:-3, 3:-3] = False
    drawn, kept = (
        correct(Brush(), picture(frame), most_clicks=4, draw_rest=draw)[0] for draw in (True, False)
    )
    assert drawn.drawn and np.array_equal(decode(drawn.mask), frame)
    assert not kept.drawn and not np.array_equal(decode(kept.mask), frame)
    assert drawn.clicks == kept.clicks == 4 and drawn.iou < 0.9


def test_only_what_the_model_missed_is_asked_for() -> None:
    truth = picture(disc(8, 8, 4.0), disc(22, 22, 5.0))
    assert len(missing_from(truth, [encode_mask(disc(8, 8, 4.5))]).masks_NHW) == 1
    assert len(missing_from(truth, []).masks_NHW) == 2
    assert correct(Brush(), Truth("a", truth.image, truth.masks_NHW[:0])) == []
