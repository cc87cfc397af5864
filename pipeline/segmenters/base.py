"""What the stages ask of a segmenter.

A segmenter embeds images once; any number of prompts is then decoded against an embedding. Predicted
IoU comes first and logits only for what is kept, because most prompts of a grid fail the threshold and
the mask head is the dearer half of a decoder.

Shape suffixes: P prompts, K points of a prompt, M masks of a prompt, N kept masks, C channels,
H rows, W columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.frame import Frame

if TYPE_CHECKING:
    import torch

    from maskmill.pipeline.decoder.decoder import DecoderWeights


@dataclasses.dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """An image as the segmenter's encoder sees it; what an `embeddings` column would keep.

    Args:
        features_CHW: the encoder's output, on the segmenter's device and in its number format.
        height, width: of the embedded image (a crop counts as an image) in px.
        input_height, input_width: of the resized image inside the square model input, without padding.
        maps: further maps that the decoder reads, [C, H, W] each: of SAM 2 and SAM-HQ.
        logits_size: of a model that stretches images to its square input and logits straight to the image:
            the logits' side. None for models that pad.
    """

    features_CHW: torch.Tensor
    height: int
    width: int
    input_height: int
    input_width: int
    maps: tuple[torch.Tensor, ...] = ()
    logits_size: int | None = None

    @property
    def frame(self) -> Frame:
        """Where logits lie in the embedded image."""
        side = self.logits_size
        return Frame(
            image_size=side or max(self.input_height, self.input_width),
            input_height=side or self.input_height,
            input_width=side or self.input_width,
            crop_xyxy=(0, 0, self.width, self.height),
            height=self.height,
            width=self.width,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts:
    """P prompts in px of the embedded image (x to the right, y down, pixel 0 from 0 to 1).

    Args:
        points_PK2: float64 x, y of K points for each prompt; None without points.
        labels_PK: int 1 foreground, 0 background, -1 padding; None without points.
        boxes_P4: float64 left, top, right, bottom; None without boxes.
        masks_P1HW: float32 low-resolution logits of an earlier round; None without.

    Raises:
        ValueError: no prompt at all, or columns of different lengths.
    """

    points_PK2: npt.NDArray[np.float64] | None = None
    labels_PK: npt.NDArray[np.int64] | None = None
    boxes_P4: npt.NDArray[np.float64] | None = None
    masks_P1HW: torch.Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {
            len(column)
            for column in (self.points_PK2, self.labels_PK, self.boxes_P4, self.masks_P1HW)
            if column is not None
        }
        if len(lengths) != 1:
            raise ValueError(f"prompts have columns of {sorted(lengths)} rows: use one length for all")
        if (self.points_PK2 is None) != (self.labels_PK is None):
            raise ValueError("points and labels come together: give both or neither")

    def __len__(self) -> int:
        for column in (self.points_PK2, self.boxes_P4, self.masks_P1HW):
            if column is not None:
                return len(column)
        raise AssertionError("checked when made")


def point_prompts(points_xy_P2: npt.NDArray[np.float64]) -> Prompts:
    """One foreground point a prompt.

    Args:
        points_xy_P2: float64[P, 2] x, y in px of the embedded image.
    """
    return Prompts(points_PK2=points_xy_P2[:, None, :], labels_PK=np.ones((len(points_xy_P2), 1), np.int64))


class Prediction(Protocol):
    """A batch of decoded prompts, before the mask head."""

    @property
    def predicted_iou_PM(self) -> torch.Tensor:
        """float32[P, M], the model's own estimate; M is 3 with multimask, else 1."""
        ...

    def masks(self, keep_PM: torch.Tensor) -> torch.Tensor:
        """Low-resolution logits of the kept masks.

        Args:
            keep_PM: bool[P, M].

        Returns:
            float32[N, h, w] over the square model input, in the order of `keep_PM.nonzero()`.
        """
        ...


class PromptableImage(Protocol):
    """An embedding with everything that its prompts share computed."""

    embedding: ImageEmbedding

    def predict(self, prompts: Prompts, *, multimask: bool = True) -> Prediction:
        """Decodes prompts together; the caller bounds how many."""
        ...


@dataclasses.dataclass(frozen=True)
class GridParts:
    """What the device engine (pipeline/gpu/) asks of a segmenter beyond its role.

    Args:
        weights: of the shared-image decoder.
        device: that it is on.
        ahead: prepares images that will be embedded next, on another thread; None where that is not apart.
    """

    weights: DecoderWeights
    device: torch.device
    ahead: Callable[[Sequence[npt.NDArray[np.uint8]]], None] | None = None


@runtime_checkable
class HasGridParts(Protocol):
    """A segmenter whose grids can go through the device engine, or one around such a segmenter."""

    def grid_parts(self) -> GridParts | None:
        """None where this model's grids go another way, as on a CPU."""
        ...


class Segmenter(Protocol):
    """The segmenter role."""

    @property
    def image_size(self) -> int:
        """Side in px of the square model input."""
        ...

    @property
    def mask_threshold(self) -> float:
        """Logits above this are mask."""
        ...

    @property
    def images_per_batch(self) -> int:
        """How many images `embed` does best together."""
        ...

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """Embeds images together; the caller bounds how many.

        Args:
            images: uint8[H, W, 3] RGB each, of any size.

        Raises:
            ValueError: an image of another shape or type.
        """
        ...

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        """Computes once what all prompts of an image share."""
        ...


def grid_parts_of(segmenter: Segmenter) -> GridParts | None:
    """What a wrapper around a segmenter hands on; None where the segmenter has nothing for the device engine.

    Args:
        segmenter: of any kind.
    """
    return segmenter.grid_parts() if isinstance(segmenter, HasGridParts) else None
