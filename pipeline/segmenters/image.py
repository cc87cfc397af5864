"""An embedding under the shared-image decoder, ready for prompts: the same for every family."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskmill.pipeline.decoder import prompts as in_input_frame
from maskmill.pipeline.decoder.decoder import SharedImageDecoder
from maskmill.pipeline.segmenters.base import ImageEmbedding, Prediction, Prompts


class SamImage:
    """See `PromptableImage`.

    Args:
        shared: the decoder.
        embedding: of the image; its maps are those that the decoder's form asks for.
        device: of the decoder.
    """

    def __init__(self, shared: SharedImageDecoder, embedding: ImageEmbedding, device: torch.device) -> None:
        self.embedding = embedding
        self._decoder = shared
        self._device = device
        maps = [one.to(device) for one in embedding.maps]
        self._state = shared.prepare(embedding.features_CHW.to(device), maps)

    def predict(self, prompts: Prompts, *, multimask: bool = True) -> Prediction:
        """See `PromptableImage.predict`.

        Raises:
            ValueError: no prompts.
        """
        return self._decoder.predict(self._state, self._to_input_frame(prompts), multimask=multimask)

    def _to_input_frame(self, prompts: Prompts) -> in_input_frame.Prompts:
        """From px of the image to px of the model's input, in float64 as `ResizeLongestSide.apply_coords`."""
        embedding = self.embedding
        scale_xy = np.array(
            [embedding.input_width / embedding.width, embedding.input_height / embedding.height]
        )
        points, labels, boxes = prompts.points_PK2, prompts.labels_PK, prompts.boxes_P4
        masks = prompts.masks_P1HW
        return in_input_frame.Prompts(
            points_xy_PN2=None if points is None else self._tensor(points * scale_xy),
            labels_PN=None if labels is None else self._tensor(labels).int(),
            boxes_xyxy_P4=None if boxes is None else self._tensor(boxes * np.tile(scale_xy, 2)),
            masks_P1hw=None if masks is None else masks.to(self._device),
        )

    def _tensor(self, values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
