"""An image's embedding as bytes, and back: what a decoder reads, without the encoder that made it.

safetensors; float16 as it is, or int8 with a scale a channel, which halves the bytes: `x = q * scale`, scale
= the channel's largest magnitude / 127. What comes back is float32 on the CPU, as an encoder gives it; a
segmenter moves it to its device.

It doesn't know: which model an embedding is of; whoever keeps it says so by a fingerprint.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from maskmill.pipeline.segmenters.base import ImageEmbedding
from maskmill.pipeline.settings.embeddings import FLOAT16, INT8

FORMAT_VERSION = 1
FLOAT16_MAX = 65504.0
_SIZES = ("height", "width", "input_height", "input_width", "logits_size")


def to_bytes(embedding: ImageEmbedding, form: str = FLOAT16) -> bytes:
    """An embedding as it is kept.

    Args:
        embedding: of an image.
        form: "float16" or "int8".

    Raises:
        ValueError: another form, or values that are no finite numbers of float16.
    """
    tensors: dict[str, Tensor] = {}
    for name, one_CHW in _named(embedding).items():
        value_CHW = one_CHW.detach().float().cpu()
        if not bool(torch.isfinite(value_CHW).all()) or float(value_CHW.abs().max()) > FLOAT16_MAX:
            raise ValueError(f"{name} of an embedding has values that {form} cannot hold")
        if form == FLOAT16:
            tensors[name] = value_CHW.half().contiguous()
        elif form == INT8:
            scale_C11 = value_CHW.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-12) / 127
            tensors[name] = (value_CHW / scale_C11).round().to(torch.int8).contiguous()
            tensors[f"{name}.scale"] = scale_C11.contiguous()
        else:
            raise ValueError(f"form={form!r} is unknown: use {FLOAT16} or {INT8}")
    sizes = {name: getattr(embedding, name) for name in _SIZES}
    return save(tensors, metadata={"maskmill": json.dumps({"format_version": FORMAT_VERSION, **sizes})})


def from_bytes(data: bytes) -> ImageEmbedding:
    """The inverse of `to_bytes`, as float32 on the CPU.

    Raises:
        ValueError: bytes that are no kept embedding, or of a newer format.
    """
    try:
        tensors = load(data)
        head = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + head])["__metadata__"]["maskmill"])
        if facts.pop("format_version") != FORMAT_VERSION:
            raise ValueError("an embedding of a newer format: update maskmill")
        features_CHW = _value(tensors, "features")
        maps = tuple(_value(tensors, f"map{place}") for place in range(_num_maps(tensors)))
        return ImageEmbedding(features_CHW=features_CHW, maps=maps, **facts)
    except (SafetensorError, KeyError, TypeError, UnicodeDecodeError) as exc:
        raise ValueError(f"not a kept embedding ({exc})") from exc


def rounded(embedding: ImageEmbedding, form: str) -> ImageEmbedding:
    """An embedding as it comes back from being kept. Raises ValueError, as `to_bytes`."""
    return from_bytes(to_bytes(embedding, form))


def _named(embedding: ImageEmbedding) -> dict[str, Tensor]:
    maps = {f"map{place}": one for place, one in enumerate(embedding.maps)}
    return {"features": embedding.features_CHW, **maps}


def _num_maps(tensors: dict[str, Tensor]) -> int:
    return sum(name.startswith("map") and "." not in name for name in tensors)


def _value(tensors: dict[str, Tensor], name: str) -> Tensor:
    value_CHW = tensors[name].float()
    scale = tensors.get(f"{name}.scale")
    return value_CHW if scale is None else value_CHW * scale
