"""Parts of a detector that depend on the image alone, or on the text alone, done once for each.

A batch holds an image as often as it has queries, an image with many queries goes on in the next batch, and a
vocabulary's text comes with every image. The image encoder runs on images that neither this batch nor the one
before had, and its maps are handed out by row; texts' features are kept from batch to batch, by their tokens.
The detector's own code in between stays as it is.

It does not know what images are equal: whoever makes the batch says so.

Shapes: B rows of a batch, U different images, L tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MOST_TEXTS = 256
"""Texts whose features are kept: LVIS's 1,203 names are some twenty."""


class _Kept(NamedTuple):
    """An image, and what its encoder made of it, level by level."""

    image: object
    levels: list[tuple[Tensor, Tensor]]


class EachImageOnce(nn.Module):
    """An encoder of (pixels, mask) to pairs of (map, mask), run on images that were not there just before.

    Args:
        encoder: the detector's.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self._image_of_row: list[object] | None = None
        self._kept: dict[int, _Kept] = {}

    def expect(self, image_of_row: Sequence[object]) -> None:
        """Says what image each row of the next batch holds.

        Args:
            image_of_row: the same object where the images are, prepared alike.
        """
        self._image_of_row = list(image_of_row)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> Any:
        """As the encoder's, each row's maps."""
        expected, self._image_of_row = self._image_of_row, None
        if expected is None:
            return self.encoder(pixel_values, pixel_mask)

        # An object that is kept is alive, so no other has its id
        first_row = {id(image): row for row, image in reversed(list(enumerate(expected)))}
        kept = {key: self._kept[key] for key in first_row if key in self._kept}
        missing = [key for key in first_row if key not in kept]
        if missing:
            rows = torch.tensor([first_row[key] for key in missing], device=pixel_values.device)
            found = self.encoder(pixel_values[rows], pixel_mask[rows])
            for place, key in enumerate(missing):
                levels = [(maps[place], mask[place]) for maps, mask in found]
                kept[key] = _Kept(expected[first_row[key]], levels)
        self._kept = kept

        by_row = [kept[id(image)].levels for image in expected]
        return [
            (torch.stack([maps for maps, _ in level]), torch.stack([mask for _, mask in level]))
            for level in zip(*by_row, strict=True)
        ]


class EachTextOnce(nn.Module):
    """A text encoder that keeps what it made of each row of tokens.

    Args:
        encoder: the detector's; its first input is int64[B, L] tokens, and nothing else differs between equal
            rows.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def forward(self, input_ids: Tensor, *parts: Any, **options: Any) -> Any:
        """The last hidden states, float[B, L, C]."""
        keys = [row.cpu().numpy().tobytes() for row in input_ids]
        missing = [
            place for place, key in enumerate(keys) if key not in self._kept and keys.index(key) == place
        ]
        made: dict[bytes, Tensor] = {}
        if missing:
            some = [part[missing] if isinstance(part, Tensor) else part for part in parts]
            output = self.encoder(input_ids[missing], *some, **{**options, "return_dict": True})
            made = {keys[place]: row for place, row in zip(missing, output.last_hidden_state, strict=True)}
        hidden_BLC = torch.stack([made[key] if key in made else self._kept[key] for key in keys])

        # The latest stay
        for key, row in made.items():
            self._kept[key] = row.clone()
        while len(self._kept) > MOST_TEXTS:
            self._kept.popitem(last=False)
        return (
            SimpleNamespace(last_hidden_state=hidden_BLC)
            if options.get("return_dict", True)
            else (hidden_BLC,)
        )
