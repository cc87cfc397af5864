"""Run lengths against pycocotools and segment_anything on the same masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from segment_anything.utils import amg

from maskmill.pipeline.rle import (
    Rle,
    area_px,
    box_xyxy,
    decode,
    encode_mask,
    from_run_lengths,
    place,
    run_lengths,
)

BoolHW = npt.NDArray[np.bool_]


@st.composite
def masks(draw: st.DrawFn, max_side: int = 40) -> BoolHW:
    """Empty, full, noisy, blocky, checkered and one-pixel masks, one-row and one-column ones too."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "blocks", "checkers", "pixel"]))
    if kind == "checkers":
        return np.indices((height, width)).sum(0) % 2 == 1
    if kind == "pixel":
        mask = np.zeros((height, width), bool)
        mask[rng.integers(height), rng.integers(width)] = True
        return mask
    noise = rng.random((height, width)) < draw(st.sampled_from([0, 0.03, 0.3, 0.5, 0.8, 0.97, 1]))
    return noise if kind == "noise" else np.kron(noise, np.ones((4, 3), bool))[:height, :width] > 0


def test_edge_masks_have_the_expected_lengths() -> None:
    assert run_lengths(encode_mask(np.zeros((3, 2), bool))).tolist() == [6]
    assert run_lengths(encode_mask(np.ones((3, 2), bool))).tolist() == [0, 6]
    assert run_lengths(encode_mask(np.eye(2, dtype=bool))).tolist() == [0, 1, 2, 1]


@settings(max_examples=150, deadline=None)
@given(masks())
def test_equal_to_pycocotools_byte_for_byte(mask_HW: BoolHW) -> None:
    rle = encode_mask(mask_HW)
    theirs = coco.encode(np.asfortranarray(mask_HW, np.uint8))
    assert rle.counts == theirs["counts"]
    assert [rle.height, rle.width] == theirs["size"]
    assert np.array_equal(decode(rle), mask_HW)
    assert area_px(rle) == coco.area(theirs) == mask_HW.sum()


@settings(max_examples=60, deadline=None)
@given(masks())
def test_equal_to_the_reference_generator(mask_HW: BoolHW) -> None:
    rle = encode_mask(mask_HW)
    mask_1HW = torch.from_numpy(mask_HW)[None]
    uncompressed = amg.mask_to_rle_pytorch(mask_1HW)[0]
    assert rle.to_coco() == amg.coco_encode_rle(uncompressed)
    assert run_lengths(rle).tolist() == uncompressed["counts"]
    assert box_xyxy(rle) == tuple(amg.batched_mask_to_box(mask_1HW)[0].tolist())


@settings(max_examples=80, deadline=None)
@given(masks(20), st.tuples(*[st.integers(0, 3)] * 4))
def test_placing_a_crop_equals_padding_its_pixels(mask_HW: BoolHW, pad: tuple[int, int, int, int]) -> None:
    left, right, above, below = pad
    padded_HW = np.pad(mask_HW, ((above, below), (left, right)))
    height, width = padded_HW.shape
    assert place(encode_mask(mask_HW), x=left, y=above, height=height, width=width) == encode_mask(padded_HW)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**24), min_size=1, max_size=60))
def test_any_lengths_survive_the_string(lengths: list[int]) -> None:
    lengths[0] += sum(lengths) == 0
    rle = from_run_lengths(sum(lengths), 1, lengths)
    assert run_lengths(rle).tolist() == lengths
    theirs = coco.frPyObjects({"size": [sum(lengths), 1], "counts": lengths}, sum(lengths), 1)
    assert rle.counts == theirs["counts"]


def test_coco_dictionaries_in_all_three_forms() -> None:
    rle = encode_mask(np.arange(12).reshape(3, 4) % 5 == 0)
    text = rle.to_coco()
    assert Rle.from_coco(text) == rle
    assert Rle.from_coco({"size": [3, 4], "counts": rle.counts}) == rle
    assert Rle.from_coco({"size": [3, 4], "counts": run_lengths(rle).tolist()}) == rle
    with pytest.raises(ValueError, match="counts"):
        Rle.from_coco({"size": [3, 4]})


def test_empty_runs_in_foreign_masks_are_harmless() -> None:
    rle = from_run_lengths(4, 2, [1, 2, 0, 3, 2, 0])
    assert area_px(rle) == 5
    assert box_xyxy(rle) == (0, 0, 1, 3)
    assert np.array_equal(decode(place(rle, x=1, y=1, height=5, width=3))[1:, 1:], decode(rle))


@pytest.mark.parametrize("counts", [b"", b"P", b"\xff\xff", b"05", b"61", b"ooooooooooooo1"])
def test_damaged_strings_are_refused(counts: bytes) -> None:
    with pytest.raises(ValueError, match="damaged run lengths for a mask of 2 x 3"):
        run_lengths(Rle(2, 3, counts))


def test_lengths_that_do_not_fill_the_mask_are_refused() -> None:
    for lengths in ([5], [7], [-1, 7], [[6]]):
        with pytest.raises(ValueError, match="must be positive and add up to 6"):
            from_run_lengths(2, 3, lengths)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="positive sides"):
        Rle(0, 3, b"")
    with pytest.raises(ValueError, match="positive sides"):
        from_run_lengths(2**16, 2**16, [2**32])


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_mask(np.zeros((2, 2), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bool\[1, 2, 2\]"):
        encode_mask(np.zeros((1, 2, 2), bool))


def test_a_crop_outside_its_image_is_refused() -> None:
    with pytest.raises(ValueError, match="reaches out"):
        place(encode_mask(np.ones((2, 2), bool)), x=1, y=0, height=2, width=2)
