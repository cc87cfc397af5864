"""What a model of transformers reads: pictures and words by its own processor, on its device, in its dtype.

It does not know what a model makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from maskmill.pipeline.pixels import Pixels


def prepare(model: Any, processor: Any, images: Sequence[Pixels], **words: Any) -> Any:
    """A batch as the model's `forward` or `generate` takes it.

    Args:
        model: whose device and dtype the tensors get; token numbers stay whole.
        processor: of the same checkpoint.
        images: uint8[H, W, 3] RGB each.
        words: what the processor is told beside them: texts, tasks, how to pad or cut.
    """
    pictures = [Image.fromarray(image) for image in images]
    inputs = processor(images=pictures, return_tensors="pt", **words).to(model.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return inputs
