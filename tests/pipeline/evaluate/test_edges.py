"""BSDS's figures: matching against trying all, thinning, figures by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmill.pipeline.evaluate.edges import EdgeCounts, count_edges, edge_figures, edge_nms, match_pixels


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
