"""Islands and holes against segment_anything (OpenCV) and scipy, parents against plain loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from segment_anything.utils import amg

from maskmill.pipeline.masks.regions import (
    clean,
    largest_island_px,
    parents,
    remove_small_regions,
)
from maskmill.pipeline.rle import box_xyxy, decode, encode_mask

BoolHW = npt.NDArray[np.bool_]
MIN_AREAS = st.sampled_from([0, 1, 2, 3.5, 5, 12, 100, 1e9])


@st.composite
def masks(draw: st.DrawFn) -> BoolHW:
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "blocks", "checkers"]))
    if kind == "checkers":
        return np.indices((height, width)).sum(0) % 2 == 1
    noise = rng.random((height, width)) < draw(st.sampled_from([0, 0.03, 0.3, 0.6, 0.9, 0.97, 1]))
    return noise if kind == "noise" else np.kron(noise, np.ones((2, 3), bool))[:height, :width] > 0


@settings(max_examples=80, deadline=None)
@given(masks(), MIN_AREAS)
def test_equal_to_the_reference_in_both_modes(mask_HW: BoolHW, min_area_px: float) -> None:
    for mode in ("holes", "islands"):
        theirs_HW, their_changed = amg.remove_small_regions(mask_HW, min_area_px, mode)
        ours, changed = remove_small_regions(encode_mask(mask_HW), min_area_px, mode)  # type: ignore[arg-type]
        assert ours == encode_mask(theirs_HW)
        assert changed == their_changed


@settings(max_examples=80, deadline=None)
@given(masks(), MIN_AREAS)
def test_clean_fills_holes_then_removes_islands(mask_HW: BoolHW, min_area_px: float) -> None:
    filled_HW, filled = amg.remove_small_regions(mask_HW, min_area_px, "holes")
    theirs_HW, removed = amg.remove_small_regions(filled_HW, min_area_px, "islands")
    (ours,) = clean([encode_mask(mask_HW)], min_area_px)
    assert ours.rle == encode_mask(theirs_HW)
    assert ours.changed == (filled or removed)
    assert ours.area_px == theirs_HW.sum()
    assert ours.box_xyxy == box_xyxy(ours.rle)
    labels_HW, _ = ndimage.label(filled_HW, np.ones((3, 3)))
    assert ours.largest_island_px == max(np.bincount(labels_HW.ravel())[1:], default=0)
    assert ours.largest_island_px == largest_island_px(encode_mask(filled_HW))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 6)])
def test_all_zeros_and_all_ones(shape: tuple[int, int]) -> None:
    empty, full = (encode_mask(np.full(shape, value)) for value in (False, True))
    for min_area_px in (0, 2, 1e9):
        assert remove_small_regions(empty, min_area_px, "islands") == (empty, False)
        assert remove_small_regions(full, min_area_px, "holes") == (full, False)
        # the only island stays however small, the only hole does not
        assert remove_small_regions(full, min_area_px, "islands")[0] == full
    assert remove_small_regions(empty, 1e9, "holes") == (full, True)


def test_pixels_that_touch_at_a_corner_are_one_island() -> None:
    diagonal = encode_mask(np.eye(5, dtype=bool))
    assert largest_island_px(diagonal) == 5
    assert remove_small_regions(diagonal, 5, "islands") == (diagonal, False)


def test_all_small_keeps_the_largest_and_says_how_large() -> None:
    mask_HW = np.zeros((9, 9), bool)
    mask_HW[0, 0:2] = mask_HW[4, 0:3] = mask_HW[8, 8] = True
    (cleaned,) = clean([encode_mask(mask_HW)], 10)
    assert decode(cleaned.rle).sum() == 3
    assert cleaned.largest_island_px == 3
    assert cleaned.changed


def test_threads_do_not_change_the_result() -> None:
    rng = np.random.default_rng(0)
    rles = [encode_mask(rng.random((40, 30)) < 0.4) for _ in range(12)]
    assert clean(rles, 6, threads=3) == clean(rles, 6, threads=1)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="corners"):
        remove_small_regions(encode_mask(np.eye(2, dtype=bool)), 1, "corners")  # type: ignore[arg-type]


@st.composite
def stacks(draw: st.DrawFn) -> list[BoolHW]:
    """Masks of one size, many of which contain another."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stack: list[BoolHW] = []
    for _ in range(draw(st.integers(0, 8))):
        mask_HW = rng.random((height, width)) < rng.choice([0, 0.2, 0.5, 0.9, 1])
        if stack and rng.random() < 0.5:
            mask_HW |= stack[rng.integers(len(stack))]
        stack.append(mask_HW)
    return stack


def plain_parent(stack: list[BoolHW], child: int, containment: float) -> int | None:
    areas = [int(mask_HW.sum()) for mask_HW in stack]
    best: int | None = None
    for other, mask_HW in enumerate(stack):
        larger = areas[other] > areas[child] or (areas[other] == areas[child] and other < child)
        held = (mask_HW & stack[child]).sum() >= containment * areas[child]
        if areas[child] and larger and held and (best is None or areas[other] < areas[best]):
            best = other
    return best


@settings(max_examples=60, deadline=None)
@given(stacks(), st.sampled_from([0.5, 0.95, 1]))
def test_parents_equal_the_plain_search(stack: list[BoolHW], containment: float) -> None:
    rles = [encode_mask(mask_HW) for mask_HW in stack]
    expected = [plain_parent(stack, child, containment) for child in range(len(stack))]
    assert parents(rles, containment=containment) == expected


def test_masks_of_two_sizes_have_no_parents() -> None:
    with pytest.raises(ValueError, match="one size"):
        parents([encode_mask(np.ones((2, 3), bool)), encode_mask(np.ones((3, 2), bool))])
    with pytest.raises(ValueError, match="containment is 0"):
        parents([], containment=0)
