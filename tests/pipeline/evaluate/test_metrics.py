"""Figures against what their authors' code or a slow restatement gives."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmill.pipeline.evaluate.agreement import best_partners, iou_matrix, share_above
from maskmill.pipeline.evaluate.boundary import boundary_iou, boundary_of
from maskmill.pipeline.evaluate.coco import MaskLedger
from maskmill.pipeline.evaluate.edges import EdgeCounts, count_edges, edge_figures, edge_nms, match_pixels
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import encode_mask

Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def blocks(seed: int, count: int, size: int = 64) -> Bools:
    draw = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), np.bool_)
    for mask in masks:
        y, x = draw.integers(0, size - 8, 2)
        height, width = draw.integers(4, size // 2, 2)
        mask[y : y + height, x : x + width] = True
    return masks


def plain_iou(a: Bools, b: Bools) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def plain_recall(truths: Bools, answers: Bools, scores: list[float], most: int) -> float:
    """COCO's AR of one picture, written out: greedy matching, best score first, averaged over thresholds."""
    order = sorted(range(len(answers)), key=lambda i: -scores[i])[:most]
    found = []
    for threshold in np.linspace(0.5, 0.95, 10):
        free = set(range(len(truths)))
        for i in order:
            hits = [(plain_iou(answers[i], truths[t]), t) for t in free]
            best = max(hits, default=(0.0, -1))
            if best[0] >= threshold:
                free.discard(best[1])
        found.append(1 - len(free) / len(truths))
    return float(np.mean(found))


@pytest.mark.parametrize("seed", range(4))
def test_recall_is_coco_s(seed: int) -> None:
    truths = blocks(seed, 6)
    noise = np.random.default_rng(seed)
    answers = np.concatenate([np.roll(truths, 1, axis=2), blocks(seed + 50, 9)])
    scores = noise.random(len(answers)).tolist()
    ledger = MaskLedger()
    ledger.add(Truth("a", np.zeros((64, 64, 3), np.uint8), truths), [encode_mask(m) for m in answers], scores)
    got = ledger.average_recall((1, 10, 100))
    for most in (1, 10, 100):
        assert got[f"ar_{most}"] == pytest.approx(plain_recall(truths, answers, scores, most), abs=1e-9)


def test_recall_by_frequency_leaves_other_kinds_out() -> None:
    truths = blocks(3, 4)
    ledger = MaskLedger()
    picture = Truth("a", np.zeros((64, 64, 3), np.uint8), truths, (1, 1, 2, 2), None, ("f", "f", "r", "r"))
    ledger.add(picture, [encode_mask(truths[0]), encode_mask(truths[1])], [0.9, 0.8])
    got = ledger.average_recall((10,))
    assert (got["ar_10"], got["ar_10_frequent"], got["ar_10_rare"]) == (0.5, 1.0, 0.0)


def test_precision_of_perfect_and_of_no_answers() -> None:
    truths = blocks(1, 3)
    picture = Truth("a", np.zeros((64, 64, 3), np.uint8), truths, (1, 2, 1))
    perfect, silent = MaskLedger(), MaskLedger()
    perfect.add(picture, [encode_mask(m) for m in truths], [0.9, 0.8, 0.7], [1, 2, 1])
    silent.add(picture, [], [], [])
    assert perfect.average_precision()["ap"] == pytest.approx(1.0)
    assert silent.average_precision()["ap"] == 0.0


def test_boundary_is_the_authors_erosion() -> None:
    mask = blocks(5, 1, 96)[0] | (np.hypot(*np.mgrid[-48:48, -48:48]) < 30)
    depth = max(1, round(0.02 * float(np.hypot(96, 96))))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=depth)[1:-1, 1:-1]
    assert np.array_equal(boundary_of(mask), mask & (eroded == 0))
    assert boundary_iou(mask, mask) == 1.0
    assert boundary_iou(np.zeros_like(mask), np.zeros_like(mask)) == 0.0
    assert boundary_iou(np.zeros_like(mask), mask) == 0.0
    with pytest.raises(ValueError, match="one size"):
        boundary_iou(mask, mask[:-1])


def most_pairs(one: list[tuple[int, int]], two: list[tuple[int, int]], reach: float) -> int:
    """The size of the largest matching, by trying all."""
    if not one:
        return 0
    near = [j for j, other in enumerate(two) if np.hypot(*(np.array(one[0]) - other)) <= reach]
    without = most_pairs(one[1:], two, reach)
    return max([without] + [1 + most_pairs(one[1:], two[:j] + two[j + 1 :], reach) for j in near])


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=5),
    st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=5),
    st.sampled_from([1.0, 1.5, 2.0]),
)
def test_matching_is_the_largest_there_is(
    one: set[tuple[int, int]], two: set[tuple[int, int]], reach: float
) -> None:
    first, second = np.zeros((6, 6), np.bool_), np.zeros((6, 6), np.bool_)
    for place in one:
        first[place] = True
    for place in two:
        second[place] = True
    ours, theirs = match_pixels(first, second, reach)
    assert ours.sum() == theirs.sum() == most_pairs(sorted(one), sorted(two), reach)
    assert not (ours & ~first).any() and not (theirs & ~second).any()


def test_edges_that_are_the_truth_are_perfect() -> None:
    truth = np.zeros((40, 40), np.bool_)
    truth[20, 5:35] = True
    got = edge_figures([count_edges(truth.astype(np.float64), [truth, truth], thresholds=9)])
    assert (got.ods, got.ois, got.r50) == (1.0, 1.0, 1.0)
    assert got.ap == pytest.approx(1.0)
    none = edge_figures([count_edges(np.zeros((40, 40)), [truth], thresholds=9)])
    assert (none.ods, none.ap, none.r50) == (0.0, 0.0, 0.0)


def test_figures_by_hand() -> None:
    """Two thresholds: 8 of 10 right finding 8 of 20, then 4 of 4 finding 4 of 20."""
    counts = EdgeCounts(*(np.array(pair) for pair in ((8, 4), (10, 4), (8, 4), (20, 20))))
    got = edge_figures([counts])
    assert got.ods == pytest.approx(2 * 0.8 * 0.4 / 1.2)
    assert got.ois == got.ods
    assert got.r50 == pytest.approx(0.4)
    assert got.ap == pytest.approx(
        np.mean([1.0] * 21 + [1 - 0.2 * (r - 20) / 20 for r in range(21, 41)] + [0.0] * 60)
    )


def test_thinning_keeps_the_ridge() -> None:
    rows = np.abs(np.arange(21) - 10)
    ridge = np.repeat(np.clip(1 - rows / 4, 0, 1)[:, None], 21, axis=1)
    kept = edge_nms(ridge)
    assert np.flatnonzero(kept.any(axis=1)).tolist() == [10]


def test_edge_maps_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="of its size"):
        count_edges(np.zeros((4, 4)), [np.zeros((5, 5), np.bool_)])
    with pytest.raises(ValueError, match="no picture"):
        edge_figures([])


def test_best_partners_both_ways() -> None:
    masks = blocks(7, 4)
    first, second = [encode_mask(m) for m in masks[:3]], [encode_mask(m) for m in masks[1:]]
    got = iou_matrix(first, second)
    for (i, a), (j, b) in itertools.product(enumerate(masks[:3]), enumerate(masks[1:])):
        assert got[i, j] == pytest.approx(plain_iou(a, b))
    ours, theirs = best_partners(first, second)
    assert ours[1] == theirs[0] == 1.0
    assert best_partners(first, [])[0].tolist() == [0, 0, 0]
    assert share_above(np.array([0.95, 0.8]), 0.9) == 0.5
