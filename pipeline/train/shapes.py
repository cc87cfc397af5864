"""The model that a training starts from, and the file that it ends in.

Trained are models of segment_anything's make: ViT-B, L and H, whose result is a `.pth` that plain
`segment_anything` loads, and students of `student.py` (nano), whose result is a student's safetensors. Other
families annotate and are teachers, but aren't trained here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from maskmill.pipeline.segmenters.sam import build_sam
from maskmill.pipeline.segmenters.student import load_student, save_student, stored_config
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.weights import weights

VITS = ("vit_b", "vit_l", "vit_h")


def load_trainable(settings: SegmenterSettings) -> Sam:
    """The model in float32 on the CPU.

    Raises:
        WeightsError: weights that can't be used.
        ValueError: a family that isn't trained here.
    """
    if settings.model not in (*VITS, "nano"):
        raise ValueError(
            f"segmenter.model={settings.model!r} can't be trained here: use nano or one of {', '.join(VITS)}"
        )
    path = weights.resolve(settings)
    if settings.model == "nano":
        return load_student(path)
    return build_sam(settings.model, weights.read_model(path), path)


def save_trained(state: dict[str, Tensor], settings: SegmenterSettings, folder: Path) -> Path:
    """Writes a model's weights in the form that its family loads.

    Args:
        state: by name, as `tune.merged_state` gives it.
        settings: of the model that the training started from.
        folder: to write to.

    Returns:
        The file: `student.safetensors` or `sam.pth`.
    """
    if settings.model == "nano":
        source = weights.resolve(settings)
        sam = load_student(source)
        sam.load_state_dict(state)
        save_student(sam, stored_config(source), folder / "student.safetensors")
        return folder / "student.safetensors"
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    torch.save(plain, folder / "sam.pth")
    return folder / "sam.pth"
