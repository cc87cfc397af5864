"""BLIP-2's texts are those of transformers' own class, over OPT and over T5."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from maskmill.pipeline.settings.words import CaptionSettings
from maskmill.pipeline.words.captioners import load_captioner
from maskmill.pipeline.words.captioners.drawing import seeded
from tests.pipeline.words.captioners.pictures import subjects
from tests.tiny_models import save_blip2


@pytest.fixture(scope="module", params=["opt", "t5"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CaptionSettings:
    folder = save_blip2(tmp_path_factory.mktemp("blip2"), language=request.param)
    return CaptionSettings(model=str(folder), num_candidates=2, min_tokens=3, max_tokens=8)


def own(settings: CaptionSettings, images: list[Any], **options: Any) -> list[str]:
    """By transformers' classes alone."""
    kinds: tuple[Any, Any] = (Blip2ForConditionalGeneration, AutoProcessor)
    model, processor = (kind.from_pretrained(settings.model) for kind in kinds)
    text = {} if settings.prompt is None else {"text": [settings.prompt] * len(images)}
    inputs = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt", **text)
    lengths = {"min_new_tokens": settings.min_tokens, "max_new_tokens": settings.max_tokens}
    tokens = model.eval().requires_grad_(False).generate(**inputs, **lengths, **options)
    texts: list[str] = processor.batch_decode(tokens, skip_special_tokens=True)
    return texts


@pytest.mark.parametrize("prompt", [None, "a picture"])
def test_beams_are_transformers_own_token_for_token(
    settings: CaptionSettings, images: list[Any], prompt: str | None
) -> None:
    beams = dataclasses.replace(settings, strategy="beam", num_beams=3, prompt=prompt)
    found = [text for pair in load_captioner(beams)[0].captions(subjects(images)) for text in pair]
    texts = own(beams, images, num_beams=3, num_return_sequences=2, do_sample=False)
    if prompt is not None:
        assert all(text.startswith(prompt) for text in found)
        texts = [text if text.startswith(prompt) else f"{prompt} {text}" for text in texts]
    assert found == texts and len(set(texts)) > 2


def test_nucleus_is_transformers_own_sampling_token_for_token(
    settings: CaptionSettings, images: list[Any], gumbel_draws: list[torch.Generator]
) -> None:
    found = [text for pair in load_captioner(settings)[0].captions(subjects(images)) for text in pair]
    gumbel_draws += [seeded(0, f"{i:09d}", number) for i in range(3) for number in range(2)]
    twice = [image for image in images for _ in range(2)]
    texts = own(settings, twice, do_sample=True, top_p=0.9, top_k=0)
    assert found == texts and len(set(texts)) == 6


def test_a_text_depends_on_its_seed_and_image_alone(settings: CaptionSettings, images: list[Any]) -> None:
    captioner = load_captioner(settings)[0]
    together = captioner.captions(subjects(images))
    assert together == [captioner.captions([subject])[0] for subject in subjects(images)]
    assert captioner.captions([]) == []


def test_an_image_is_encoded_once_for_all_its_texts(settings: CaptionSettings, images: list[Any]) -> None:
    captioner: Any = load_captioner(settings)[0]
    rows: list[int] = []
    captioner._model.vision_model.register_forward_hook(
        lambda _, given, out: rows.append(len(out.last_hidden_state))
    )
    captioner.captions(subjects(images))
    assert rows == [3]
