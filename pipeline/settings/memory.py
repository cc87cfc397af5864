"""Host memory that a worker needs on a CPU: from its model's parameters and input, not from its name.

    bytes = process + input pixels x a pixel's share + parameters x a parameter's share, in whole gigabytes

The process is Python, torch and the photo on its way in and out; a pixel's share is the encoder's widest
activations: transformers' encoders keep more of them at once than ours; a parameter's share is the weights
with what loading them and the decoder's and the encoder's other layouts take for a while.

A weights file or folder on this machine is counted; else the largest public model of the family is assumed.
It does not know GPUs, nor how many prompts are decoded together.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from maskmill.pipeline.settings.families import family_of
from maskmill.pipeline.settings.segmenter import SegmenterSettings

GB = 10**9
PROCESS_BYTES = 850 * 10**6
BYTES_A_PIXEL = {"ours": 900, "transformers": 2400}
BYTES_A_PARAMETER = 12.5

WORD_MODEL_BYTES = 3 * GB
"""Of a captioner, filter, detector or namer beside the segmenter; BLIP-large has 1.9 GB of weights."""

_WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt")
_MAX_HEADER_BYTES = 100_000_000


def segmenter_bytes(settings: SegmenterSettings) -> int:
    """What a worker with this segmenter needs, in bytes; never fetches weights.

    Args:
        settings: model and weights.
    """
    family = family_of("segmenter", settings.model)
    assert family.encoder is not None, "segmenters have an encoder"
    path = None if settings.weights is None else Path(settings.weights).expanduser()
    parameters = family.parameters if path is None or not path.exists() else count_parameters(path)
    need = PROCESS_BYTES + family.input_px**2 * BYTES_A_PIXEL[family.encoder] + parameters * BYTES_A_PARAMETER
    return math.ceil(need / GB) * GB


def count_parameters(path: Path) -> int:
    """How many numbers a weights file or a folder's weights files hold.

    Args:
        path: safetensors files are counted by their header, others as float32 by their size.
    """
    if path.is_dir():
        kinds = (sorted(path.glob(pattern)) for pattern in _WEIGHTS)
        files: list[Path] = next((found for found in kinds if found), [])
        return sum(count_parameters(file) for file in files)
    if path.suffix == ".safetensors":
        return _count_safetensors(path)
    return path.stat().st_size // 4


def _count_safetensors(path: Path) -> int:
    """By its header: eight bytes of length, then JSON; by its size where that is damaged."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length < _MAX_HEADER_BYTES else b""
    try:
        tensors = json.loads(header)
        return sum(math.prod(tensors[name]["shape"]) for name in tensors if name != "__metadata__")
    except (ValueError, KeyError, TypeError):
        return path.stat().st_size // 2
