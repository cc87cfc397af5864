"""Frames: where a crop's low-resolution logits lie in the photo.

A crop of the image is scaled so that its longer side fills the model's square input, and padded at the right
and below; logits cover the whole square. `Frame` holds the four sizes, so that what is measured in one frame
can be said in another. It knows sizes only, no pixels and no logits (masks/upsample.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a crop's logits lie; all in px.

    Args:
        image_size: side of the model's square input.
        input_height, input_width: its part that is not padding.
        crop_xyxy: in the image; the far corner is exclusive.
        height, width: of the whole image.

    Raises:
        ValueError: a crop that is empty or reaches out of the image, or an input larger than the model's.
    """

    image_size: int
    input_height: int
    input_width: int
    crop_xyxy: tuple[int, int, int, int]
    height: int
    width: int

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.crop_xyxy
        if not (0 <= x0 < x1 <= self.width and 0 <= y0 < y1 <= self.height):
            raise ValueError(
                f"the crop {self.crop_xyxy} is empty or reaches out of "
                f"an image of {self.height} x {self.width}"
            )
        if not (1 <= self.input_height <= self.image_size and 1 <= self.input_width <= self.image_size):
            raise ValueError(
                f"the un-padded input {self.input_height} x {self.input_width} must lie "
                f"within the model's input of {self.image_size} x {self.image_size}"
            )

    @property
    def crop_height(self) -> int:
        """In px."""
        return self.crop_xyxy[3] - self.crop_xyxy[1]

    @property
    def crop_width(self) -> int:
        """In px."""
        return self.crop_xyxy[2] - self.crop_xyxy[0]

    @classmethod
    def of_crop(
        cls, image_size: int, crop_xyxy: tuple[int, int, int, int], *, height: int, width: int
    ) -> Frame:
        """With the un-padded size of the reference's ResizeLongestSide.get_preprocess_shape."""
        x0, y0, x1, y1 = crop_xyxy
        scale = image_size * 1.0 / max(y1 - y0, x1 - x0, 1)
        return cls(
            image_size=image_size,
            input_height=int((y1 - y0) * scale + 0.5),
            input_width=int((x1 - x0) * scale + 0.5),
            crop_xyxy=crop_xyxy,
            height=height,
            width=width,
        )

    @classmethod
    def of_image(cls, image_size: int, *, height: int, width: int) -> Frame:
        """The crop is the whole image."""
        return cls.of_crop(image_size, (0, 0, width, height), height=height, width=width)
