"""From the decoder's low-resolution logits to areas, stability, boxes and run lengths at the photo's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.rle import Rle

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a crop's logits lie: model input (image_size square, padded), its un-padded part, the crop, the image."""

    image_size: int  # the model's square input, px
    input_height: int  # its part that is not padding, px
    input_width: int
    crop_xyxy: tuple[int, int, int, int]  # in the image; corners exclusive at the far side
    height: int  # of the whole image, px
    width: int

    @classmethod
    def of_crop(cls, image_size: int, crop_xyxy: tuple[int, int, int, int], *, height: int, width: int) -> Frame:
        """With the un-padded size as the reference's ResizeLongestSide.get_preprocess_shape computes it."""
        raise NotImplementedError

    @classmethod
    def of_image(cls, image_size: int, *, height: int, width: int) -> Frame:
        """The crop is the whole image."""
        return cls.of_crop(image_size, (0, 0, width, height), height=height, width=width)


@dataclass(frozen=True)
class MaskMeasures:
    """Columns with N rows; boxes are in the crop's frame (add crop_xyxy's corner for the image's)."""

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
        raise NotImplementedError


def measure(
    logits_NHW: npt.NDArray[np.float32],
    frame: Frame,
    *,
    offset: float = 1.0,
    threshold: float = 0.0,
    threads: int | None = None,
) -> MaskMeasures:
    raise NotImplementedError


def runs(logits_HW: npt.NDArray[np.float32], frame: Frame, *, threshold: float = 0.0) -> Rle:
    """The mask logit > threshold of one map, in the whole image's frame."""
    raise NotImplementedError


def runs_batch(
    logits_NHW: npt.NDArray[np.float32], frame: Frame, *, threshold: float = 0.0, threads: int | None = None
) -> list[Rle]:
    """`runs` of each map, over a pool of `threads` threads."""
    raise NotImplementedError
