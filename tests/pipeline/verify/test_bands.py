"""Parts of windows and what is told of them: the compiled loops against the same in few lines of arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from maskmill.pipeline.verify import bands
from maskmill.pipeline.verify.windows import SIDE, Windows

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
SQUARE = {side: np.ones((side, side), np.bool_) for side in (3, 5, 11)}


def some_windows() -> Windows:
    """Noise, a block, a line, one sample, nothing, everything, and one that reaches beyond the picture."""
    rng = np.random.default_rng(3)
    mask_NSS = np.zeros((9, SIDE, SIDE), np.bool_)
    mask_NSS[0] = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2) > 0
    mask_NSS[1, 8:24, 10:22] = mask_NSS[2, 15, 3:30] = mask_NSS[3, 31, 31] = True
    mask_NSS[5] = True
    mask_NSS[6, 5:11, 5:11] = mask_NSS[8, 5:12, 5:12] = True  # with a core of 4 samples, too few, and of 9
    mask_NSS[7, 0:20, 0:9] = True
    within_NSS = np.ones_like(mask_NSS)
    within_NSS[7, :, :6] = False
    where = np.zeros((len(mask_NSS), SIDE))
    return Windows(where, where, mask_NSS & within_NSS, within_NSS)


def parts_by_arrays(mask_SS: Bools, within_SS: Bools) -> list[Bools]:
    """In the order of the flags."""
    grown, wide, far = (ndimage.binary_dilation(mask_SS, SQUARE[side]) for side in (3, 5, 11))
    shrunk, deep = (ndimage.binary_erosion(mask_SS, SQUARE[side], border_value=1) for side in (3, 5))
    core = deep if deep.sum() > 4 else mask_SS
    outline, beyond = grown & ~shrunk & within_SS, wide & ~grown & within_SS
    return [mask_SS, outline, shrunk & ~deep, beyond, core, far & ~grown & within_SS, far & within_SS]


def test_parts_are_grown_and_shrunk_masks() -> None:
    where = some_windows()
    parts_NG = bands.parts_of(where)
    for n, (mask_SS, within_SS) in enumerate(zip(where.mask_NSS, where.within_NSS, strict=True)):
        for place, wanted in enumerate(parts_by_arrays(mask_SS, within_SS)):
            found = (parts_NG[n] >> place & 1).astype(np.bool_).reshape(SIDE, SIDE)
            np.testing.assert_array_equal(found, wanted, err_msg=f"window {n}, part {place}")
            assert bands.samples_in(parts_NG, 1 << place)[n] == wanted.sum()


def mean(value_G: Floats, part_G: Bools) -> float:
    return float(value_G[part_G].mean()) if part_G.any() else 0.0


def told_by_arrays(along_G: Floats, parts: list[Bools]) -> list[float]:
    mask, outline, _, _, core, outside, around = (part.ravel() for part in parts)
    inside, beside = mean(along_G, core), mean(along_G, outside)
    spread = mean((along_G - inside) ** 2, core) + mean((along_G - beside) ** 2, outside) + 1e-3
    nearer = (along_G > 0.5) & around
    return [
        np.log1p((inside - beside) ** 2 / spread),
        mean((along_G > 0.5).astype(float), mask),
        mean((along_G < 0.5).astype(float), outside),
        float(np.clip(mean(along_G, outline), -1, 2)),
        (nearer & mask).sum() / max(1, (nearer | mask).sum()),
    ]


def test_what_is_told_apart_is_by_means_over_parts() -> None:
    where = some_windows()
    parts_NG = bands.parts_of(where)
    along_NG = np.random.default_rng(4).normal(0.5, 1, parts_NG.shape).astype(np.float32)
    found_NP = bands.told_apart(along_NG, parts_NG)
    for n, (mask_SS, within_SS) in enumerate(zip(where.mask_NSS, where.within_NSS, strict=True)):
        wanted = told_by_arrays(along_NG[n].astype(np.float64), parts_by_arrays(mask_SS, within_SS))
        np.testing.assert_allclose(found_NP[n], wanted, rtol=2e-5, atol=1e-6, err_msg=f"window {n}")


def test_colours_are_told_apart_along_their_line_and_edges_where_they_lie() -> None:
    where = some_windows()
    parts_NG = bands.parts_of(where)
    colour_NG3 = np.random.default_rng(6).random((*parts_NG.shape, 3)).astype(np.float32)
    found_NP = bands.of_colours(colour_NG3, parts_NG)
    for n, (mask_SS, within_SS) in enumerate(zip(where.mask_NSS, where.within_NSS, strict=True)):
        parts = parts_by_arrays(mask_SS, within_SS)
        colour_G3 = colour_NG3[n].astype(np.float64)
        inside, outside = (
            np.array([mean(colour_G3[:, channel], parts[place].ravel()) for channel in range(3)])
            for place in (4, 5)
        )
        toward = inside - outside
        along_G = (colour_G3 @ toward - toward @ outside) / (toward @ toward + 3e-3)
        np.testing.assert_allclose(found_NP[n, :-1], told_by_arrays(along_G, parts), rtol=1e-4, atol=1e-5)

        padded = np.pad(colour_G3.reshape(SIDE, SIDE, 3), ((1, 1), (1, 1), (0, 0)), mode="edge")
        across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
        change_G = np.sqrt((across**2 + down**2).sum(axis=2)).ravel()
        on, within, beyond = (np.log(mean(change_G, parts[place].ravel()) + 3e-2) for place in (1, 2, 3))
        assert found_NP[n, -1] == pytest.approx(on - max(within, beyond), rel=1e-4, abs=1e-5)


def test_weights_count_samples_over_each_place() -> None:
    parts_NG = bands.parts_of(some_windows())
    place_NG = np.random.default_rng(7).integers(0, 9, parts_NG.shape)
    found_NE = bands.weights_at(parts_NG, bands.CORE, place_NG, 9)
    for n, places in enumerate(place_NG):
        wanted = np.bincount(places[parts_NG[n] & bands.CORE != 0], minlength=9)
        np.testing.assert_array_equal(found_NE[n], wanted)
