"""From the decoder's low-resolution logits to areas, stability, boxes and run lengths at the photo's size.

The reference (segment_anything's Sam.postprocess_masks, then SamAutomaticMaskGenerator) interpolates
bilinearly to the model's square input, cuts the padding off, interpolates to the crop's size, and counts on
the full-size array. Here nothing of that size exists. Three facts do it:

1. Each output pixel depends on two or three neighbouring rows and columns of the logits, and its value never
   lies beyond its taps. So a block of pixels whose taps all lie below the lowest threshold counts nothing,
   and one whose taps all lie above the highest counts fully: only the band between needs values.
2. Within the band a row of the middle grid (the model's input) is interpolated once and serves all output
   rows that use it; the inner loops run along contiguous rows.
3. Run lengths need only the places where a column changes; they are collected row by row, then sorted.

The arithmetic is that of torch's CPU kernel for three channels (the multimask output): float32, the four taps
weighed by products of weights and summed by fused multiply-adds in the same order, so areas, boxes and runs
come out equal to the last pixel there. Other devices and builds round otherwise: a pixel whose logit lies
within a rounding error of a threshold may fall on the other side.

What it does not know: which masks are worth measuring (automask.py). Logits must be finite.

Shape legend: N masks; H, W the logits' height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.frame import Frame
from maskmill.pipeline.machine.compiled import map_in_threads
from maskmill.pipeline.masks.upsample_axes import Axis, Floats, Ints, compose_axis
from maskmill.pipeline.masks.upsample_loops import measure_masks, toggles
from maskmill.pipeline.rle import Rle, from_changes


@dataclass(frozen=True)
class MaskMeasures:
    """Columns with N rows; boxes are in the crop's frame (add crop_xyxy's near corner for the image's)."""

    area_px: Ints  # [N] logit > threshold
    inner_px: Ints  # [N] logit > threshold + offset
    outer_px: Ints  # [N] logit > threshold - offset
    box_xyxy: Ints  # [N, 4] inclusive corners, zeros for an empty mask

    def __len__(self) -> int:
        return len(self.area_px)

    def __getitem__(self, keep: npt.NDArray[np.bool_] | Ints) -> MaskMeasures:
        return MaskMeasures(self.area_px[keep], self.inner_px[keep], self.outer_px[keep], self.box_xyxy[keep])

    @property
    def stability_score(self) -> npt.NDArray[np.float32]:
        """inner / outer, float32[N]; 0 where nothing exceeds threshold - offset (the reference gives nan)."""
        inner, outer = self.inner_px.astype(np.float32), self.outer_px.astype(np.float32)
        return np.divide(inner, outer, out=np.zeros_like(inner), where=outer > 0)


def measure(
    logits_NHW: Floats,
    frame: Frame,
    *,
    offset: float = 1.0,
    threshold: float = 0.0,
    threads: int | None = None,
) -> MaskMeasures:
    """What the reference's calculate_stability_score and batched_mask_to_box say of the upsampled logits.

    Args:
        logits_NHW: float32[N, H, W], the decoder's.
        frame: where they lie.
        offset: how far the inner and outer thresholds lie from the mask's, in logits; not negative.
        threshold: a pixel belongs to the mask when its logit is greater.
        threads: at most so many; None for all of the machine's.

    Raises:
        ValueError: logits of another dtype or rank, a negative offset.
    """
    logits_NHW = _checked(logits_NHW, 3)
    if not offset >= 0:
        raise ValueError(f"offset is {offset}; it must be 0 or more")
    out_NK = _measured(logits_NHW, frame, offset, threshold, False, threads)
    return MaskMeasures(out_NK[:, 1], out_NK[:, 2], out_NK[:, 0], out_NK[:, 3:])


def boxes(logits_NHW: Floats, frame: Frame, *, threshold: float = 0.0, threads: int | None = None) -> Ints:
    """`measure`'s boxes alone, int64[N, 4], from the bands that can widen them.

    Args:
        logits_NHW: float32[N, H, W], the decoder's.
        frame: where they lie.
        threshold: a pixel belongs to the mask when its logit is greater.
        threads: at most so many; None for all of the machine's.

    Raises:
        ValueError: logits of another dtype or rank.
    """
    return _measured(_checked(logits_NHW, 3), frame, 0.0, threshold, True, threads)[:, 3:]


def _measured(
    logits_NHW: Floats, frame: Frame, offset: float, threshold: float, only_box: bool, threads: int | None
) -> Ints:
    """int64[N, 7]: counts above the three levels, ascending, and the box."""
    rows, columns = _plans(logits_NHW.shape[1:], frame)
    levels = np.array([threshold - offset, threshold, threshold + offset], np.float32)
    num_masks = len(logits_NHW)
    out_NK = np.zeros((num_masks, 7), np.int64)

    def job(part: slice) -> None:
        """Some masks, into their own rows."""
        measure_masks(logits_NHW[part], rows, columns, levels, only_box, out_NK[part])

    step = max(1, num_masks // 16)  # masks differ in cost: several parts a thread
    map_in_threads(job, [slice(at, at + step) for at in range(0, num_masks, step)], threads)
    return out_NK


def runs(logits_HW: Floats, frame: Frame, *, threshold: float = 0.0) -> Rle:
    """The mask logit > threshold of one map float32[H, W], in the whole image's frame."""
    logits_HW = _checked(logits_HW, 2)
    rows, columns = _plans(logits_HW.shape, frame)
    xs, ys, used = toggles(logits_HW, rows, columns, np.float32(threshold))
    x0, y0, _, _ = frame.crop_xyxy
    return from_changes(
        xs[:used],
        ys[:used],
        x=x0,
        y=y0,
        columns=frame.crop_width,
        height=frame.height,
        width=frame.width,
    )


def runs_batch(
    logits_NHW: Floats, frame: Frame, *, threshold: float = 0.0, threads: int | None = None
) -> list[Rle]:
    """`runs` of each map of float32[N, H, W], over at most `threads` threads."""
    logits_NHW = _checked(logits_NHW, 3)
    return map_in_threads(lambda map_HW: runs(map_HW, frame, threshold=threshold), list(logits_NHW), threads)


def _checked(logits: Floats, rank: int) -> Floats:
    if logits.ndim != rank or logits.dtype != np.float32 or 0 in logits.shape[-2:]:
        wanted = "float32[N, H, W]" if rank == 3 else "float32[H, W]"
        raise ValueError(f"logits must be {wanted}; these are {logits.dtype}{list(logits.shape)}")
    return np.ascontiguousarray(logits)


def _plans(shape: tuple[int, ...], frame: Frame) -> tuple[Axis, Axis]:
    height, width = shape
    return (
        compose_axis(height, frame.image_size, frame.input_height, frame.crop_height),
        compose_axis(width, frame.image_size, frame.input_width, frame.crop_width),
    )
