"""The captioners and the filter: `load_captioner` builds those whose folders or hub ids the settings name.

A new captioner is a file of its own with the protocol `Captioner` (caption.py), its family in
settings/families.py, and a line here. The filter of them all is BLIP's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskmill.pipeline.settings.families import model_types_of
from maskmill.pipeline.weights import pretrained

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import CaptionSettings
    from maskmill.pipeline.words.caption import Captioner, TextFilter


def load_captioner(settings: CaptionSettings) -> tuple[Captioner, TextFilter | None]:
    """The captioner, and the filter where the settings name one.

    Raises:
        WeightsError: weights that are missing, damaged or another model's.
        ValueError: a device that this machine lacks, or a prompt that the captioner doesn't take.
    """
    assert settings.model is not None, "captions that are off load nothing"
    found = pretrained.find(settings.model, role="captioner", model_types=model_types_of("captioner"))
    captioner = _captioner(found, settings)
    if settings.filter is None:
        return captioner, None

    from transformers import AutoProcessor, BlipForImageTextRetrieval

    from maskmill.pipeline.words.captioners.blip import BlipFilter

    found = pretrained.find(settings.filter, role="filter", model_types=model_types_of("filter"))
    judge = pretrained.load(BlipForImageTextRetrieval, AutoProcessor, found, dtype=settings.dtype)
    return captioner, BlipFilter(*judge, device=settings.device)


def _captioner(found: pretrained.Pretrained, settings: CaptionSettings) -> Captioner:
    # transformers and the network, only now that a folder is there
    import transformers

    def load(network: Any) -> tuple[Any, Any]:
        """The network and its processor, by the settings."""
        return pretrained.load(network, transformers.AutoProcessor, found, dtype=settings.dtype)

    if found.model_type == "blip-2":
        from maskmill.pipeline.words.captioners.blip2 import Blip2Captioner

        return Blip2Captioner(*load(transformers.Blip2ForConditionalGeneration), settings)
    if found.model_type == "florence2":
        from maskmill.pipeline.words.captioners.florence2 import Florence2Captioner, check_task

        check_task(settings.prompt)
        return Florence2Captioner(*load(transformers.Florence2ForConditionalGeneration), settings)
    from maskmill.pipeline.words.captioners.blip import BlipCaptioner

    return BlipCaptioner(*load(transformers.BlipForConditionalGeneration), settings)
