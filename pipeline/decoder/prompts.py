"""Prompts as the decoder takes them, and as the tokens that a prompt encoder makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskmill.pipeline.decoder.forms import DecoderForm


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts of one shape, in pixels of the model's input (resized, padded) frame.

    Args:
        points_xy_PN2: float[P, N, 2], x before y, or None.
        labels_PN: int or float[P, N]: 1 foreground, 0 background, -1 padding; None exactly without points.
        boxes_xyxy_P4: float[P, 4], or None.
        masks_P1hw: float[P, 1, 4H, 4W] logits of an earlier round, or None.

    Raises:
        ValueError: nothing given, points without labels, or counts that differ.
    """

    points_xy_PN2: Tensor | None = None
    labels_PN: Tensor | None = None
    boxes_xyxy_P4: Tensor | None = None
    masks_P1hw: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.points_xy_PN2 is None) != (self.labels_PN is None):
            raise ValueError("points and labels come together: give both or neither")
        counts = {len(part) for part in self._parts()}
        if len(counts) != 1:
            raise ValueError(f"a batch of prompts needs one count over its parts, got {sorted(counts)}")
        if self.points_xy_PN2 is not None and self.labels_PN is not None:
            points, labels = tuple(self.points_xy_PN2.shape), tuple(self.labels_PN.shape)
            if points != (*labels, 2):
                raise ValueError(f"points need shape (P, N, 2) and labels (P, N), got {points} and {labels}")

    def __len__(self) -> int:
        return len(self._parts()[0])

    def __getitem__(self, rows: slice) -> Prompts:
        """The prompts `rows`, the other parts cut alike."""

        def cut(part: Tensor | None) -> Tensor | None:
            """Its rows, if it is given."""
            return None if part is None else part[rows]

        points, labels = cut(self.points_xy_PN2), cut(self.labels_PN)
        return Prompts(points, labels, cut(self.boxes_xyxy_P4), cut(self.masks_P1hw))

    def _parts(self) -> list[Tensor]:
        parts = (self.points_xy_PN2, self.labels_PN, self.boxes_xyxy_P4, self.masks_P1hw)
        return [part for part in parts if part is not None]


def encode(prompt_encoder: Any, prompts: Prompts, form: DecoderForm) -> tuple[Tensor, Tensor]:
    """The prompts' own tokens, float[P, N, C], and what they add to the embedding, float[P, C, H, W].

    Args:
        prompt_encoder: `segment_anything.modeling.PromptEncoder`.
        prompts: P of them.
        form: of the decoder that the tokens are for.
    """
    points, boxes = prompts.points_xy_PN2, prompts.boxes_xyxy_P4
    given = None if points is None else (points, prompts.labels_PN)

    # A mask alone: SAM 2 asks for a point of padding
    if form.pads_boxes and points is None and boxes is None:
        like = prompt_encoder.no_mask_embed.weight
        given = (like.new_zeros(len(prompts), 1, 2), like.new_full((len(prompts), 1), -1))

    sparse_PNC, dense_PCHW = prompt_encoder(given, boxes, prompts.masks_P1hw)
    if form.pads_boxes and boxes is not None:
        padding_C = prompt_encoder.not_a_point_embed.weight
        sparse_PNC = torch.cat([sparse_PNC, padding_C.expand(len(prompts), 1, -1)], dim=1)
    return sparse_PNC, dense_PCHW
