"""Pictures and words as a model takes them: floats in its dtype, token numbers whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature

from maskmill.pipeline.words.inputs import prepare


def processor(images: list[Any], **words: Any) -> BatchFeature:
    """Sizes and texts of what it is given."""
    assert words.pop("return_tensors") == "pt"
    pixels = torch.tensor([[image.width, image.height] for image in images], dtype=torch.float32)
    return BatchFeature({"pixel_values": pixels, "input_ids": torch.tensor([[len(words["text"])]])})


def test_pixels_get_the_models_dtype_and_tokens_stay_whole() -> None:
    model = SimpleNamespace(device=torch.device("cpu"), dtype=torch.bfloat16)
    found = prepare(model, processor, [np.zeros((2, 3, 3), np.uint8)], text=["a", "b"])
    assert found["pixel_values"].dtype == torch.bfloat16 and found["pixel_values"].tolist() == [[3, 2]]
    assert found["input_ids"].dtype == torch.int64 and found["input_ids"].tolist() == [[2]]
