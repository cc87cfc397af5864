"""The segmenters: `load_segmenter` builds the one that settings name, `weights_identity` says which it is.

Importing this loads no torch: drivers need the identity, workers the model.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from maskmill.pipeline.machine.light_imports import import_torchvision
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.settings.families import family_of
from maskmill.pipeline.weights import pretrained, weights

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter


def load_segmenter(settings: SegmenterSettings) -> Segmenter:
    """A segmenter with its weights, on its device.

    Args:
        settings: `threads` sets torch's CPU threads for the whole process.

    Raises:
        WeightsError: weights that are missing, damaged, refused or another model's.
        ValueError: a device that this machine lacks.
    """
    if settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)
    import_torchvision()
    from maskmill.pipeline.machine.devices import choose_device
    from maskmill.pipeline.machine.formats import format_for

    dtype = format_for(settings.dtype, choose_device(settings.device))
    settings = dataclasses.replace(settings, dtype=dtype)
    family = family_of("segmenter", settings.model)
    if family.encoder == "ours":
        from maskmill.pipeline.segmenters.sam import load_sam_segmenter

        return load_sam_segmenter(settings)

    path = weights.resolve(settings)
    if path.is_file():
        from maskmill.pipeline.segmenters.official_sam2 import load_official

        tensors = weights.read_tensors(path)
        return load_official(tensors, path, device=settings.device, dtype=settings.dtype)

    from maskmill.pipeline.segmenters.families import load_family

    found = pretrained.find(str(path), role="segmenter", model_types=family.model_types)
    return load_family(found, family.name, device=settings.device, dtype=settings.dtype)


def weights_identity(settings: SegmenterSettings) -> str:
    """The sha256 of the segmenter's weights in hex, for fingerprints; loads no model.

    Raises:
        maskmill.pipeline.weights.errors.MissingWeights: no such file.
    """
    return weights.sha256_of(weights.resolve(settings))
