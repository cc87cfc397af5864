"""What is missing: where an object has no mask, what a picture as a whole shows, and the share found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maskmill.pipeline.annotation import AnnotatedImage, PassedOver, Votes
from maskmill.pipeline.verify.exhaustivity import SEEN, fit_share, look
from tests.pipeline.verify.test_features import annotation

SIDE = 96
VOTES = Votes(count=4, iou_sum=2.0, near=5, prompts=3, inside=6, asked=8, own_outputs=0.5)


def blocks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """A picture with two bright blocks, and the masks of both."""
    pixels = np.full((SIDE, SIDE, 3), 30, np.uint8)
    first, second = np.zeros((2, SIDE, SIDE), bool)
    first[10:40, 10:40] = second[55:85, 55:85] = True
    pixels[first | second] = 220
    return pixels, first, second


def seen(found: np.ndarray, name: str) -> float:  # type: ignore[type-arg]
    return float(found[SEEN.index(name)])


def test_an_object_without_a_mask_is_unexplained_where_it_lies() -> None:
    pixels, first, second = blocks()
    one = AnnotatedImage(SIDE, SIDE, (annotation(first, VOTES),))
    both = AnnotatedImage(SIDE, SIDE, (annotation(first, VOTES), annotation(second, VOTES)))
    sure = np.ones(2, np.float32)
    half, whole = look(one, sure[:1], pixels), look(both, sure, pixels)
    assert half.unexplained_RC[55:86, 55:86].max() > 0.5
    assert half.unexplained_RC[12:38, 12:38].max() == 0, "inside of the mask that is there"
    assert whole.unexplained_RC.sum() < 0.7 * half.unexplained_RC.sum()
    assert seen(whole.seen_S, "open_edges") < seen(half.seen_S, "open_edges")

    # A candidate that nobody stands for, and masks that are not believed
    passed = replace(one, passed_over=(PassedOver((60.0, 60.0, 10.0, 10.0), 0.7, 2),))
    assert look(passed, sure[:1], pixels).unexplained_RC[65, 65] == pytest.approx(0.7)
    doubted = look(both, sure * np.float32(0.1), pixels)
    assert doubted.unexplained_RC.sum() > whole.unexplained_RC.sum()


def test_prompts_that_found_nothing_and_texture_are_seen() -> None:
    pixels, first, _ = blocks()
    image = AnnotatedImage(SIDE, SIDE, (annotation(first, VOTES),))
    found = look(image, np.ones(1, np.float32), pixels).seen_S
    assert seen(found, "unanswered") == pytest.approx((8 - 6) / 8)
    changes = np.abs(np.diff(pixels[..., 0].astype(float), axis=1)).mean()
    assert seen(found, "texture") == pytest.approx(np.log(changes + 1), rel=1e-5)
    without = AnnotatedImage(SIDE, SIDE, (annotation(first),))
    assert np.isnan(seen(look(without, np.ones(1, np.float32), pixels).seen_S, "unanswered"))


def test_the_share_follows_what_is_seen_and_what_is_unknown_says_nothing() -> None:
    rng = np.random.default_rng(0)
    seen_PS = rng.normal(size=(80, len(SEEN))).astype(np.float32)
    recall_P = 1 / (1 + np.exp(-2 * seen_PS[:, 1]))
    share = fit_share(list(seen_PS), recall_P.tolist())
    assert np.corrcoef(share(seen_PS), recall_P)[0, 1] > 0.95

    hidden_PS, mean_PS = seen_PS.copy(), seen_PS.copy()
    hidden_PS[:, 5], mean_PS[:, 5] = np.nan, share.mean_S[5]
    np.testing.assert_allclose(share(hidden_PS), share(mean_PS), rtol=1e-5)
    some = fit_share([*hidden_PS[:40], *seen_PS[40:]], recall_P.tolist())
    assert np.isfinite(some.weight_S).all() and np.isfinite(some(hidden_PS)).all()
    assert np.isfinite(fit_share(list(hidden_PS), recall_P.tolist()).mean_S).all(), "unknown of every picture"
    with pytest.raises(ValueError, match="no picture to learn from"):
        fit_share([], [])
