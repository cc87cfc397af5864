"""Florence-2's texts are those of transformers' own class and task."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Florence2ForConditionalGeneration

from maskmill.pipeline.settings.words import CaptionSettings
from maskmill.pipeline.words.captioners import load_captioner
from maskmill.pipeline.words.captioners.drawing import seeded
from tests.pipeline.words.captioners.pictures import subjects
from tests.tiny_models import save_florence2


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> CaptionSettings:
    folder = save_florence2(tmp_path_factory.mktemp("florence2"))
    return CaptionSettings(model=str(folder), num_candidates=2, min_tokens=3, max_tokens=8)


def own(settings: CaptionSettings, images: list[Any], task: str, **options: Any) -> list[str]:
    """By transformers' classes and post-processing alone."""
    kinds: tuple[Any, Any] = (Florence2ForConditionalGeneration, AutoProcessor)
    model, processor = (kind.from_pretrained(settings.model) for kind in kinds)
    inputs = processor(
        images=[Image.fromarray(image) for image in images], text=[task] * len(images), return_tensors="pt"
    )
    lengths = {"min_new_tokens": settings.min_tokens, "max_new_tokens": settings.max_tokens}
    tokens = model.eval().requires_grad_(False).generate(**inputs, **lengths, **options)
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    return [processor.post_process_generation(text, task=task, image_size=(50, 50))[task] for text in texts]


@pytest.mark.parametrize("task", ["<CAPTION>", "<MORE_DETAILED_CAPTION>"])
def test_beams_are_transformers_own_token_for_token(
    settings: CaptionSettings, images: list[Any], task: str
) -> None:
    prompt = None if task == "<CAPTION>" else task
    beams = dataclasses.replace(settings, strategy="beam", num_beams=3, prompt=prompt)
    found = [text for pair in load_captioner(beams)[0].captions(subjects(images)) for text in pair]
    texts = own(beams, images, task, num_beams=3, num_return_sequences=2, do_sample=False)
    assert found == texts and len(set(texts)) > 2


def test_nucleus_is_transformers_own_sampling_token_for_token(
    settings: CaptionSettings, images: list[Any], gumbel_draws: list[torch.Generator]
) -> None:
    found = [text for pair in load_captioner(settings)[0].captions(subjects(images)) for text in pair]
    gumbel_draws += [seeded(0, f"{i:09d}", number) for i in range(3) for number in range(2)]
    twice = [image for image in images for _ in range(2)]
    texts = own(settings, twice, "<CAPTION>", do_sample=True, num_beams=1, top_p=0.9, top_k=0)
    assert found == texts and len(set(texts)) == 6


def test_a_text_depends_on_its_seed_and_image_alone(settings: CaptionSettings, images: list[Any]) -> None:
    captioner = load_captioner(settings)[0]
    together = captioner.captions(subjects(images))
    assert together == [captioner.captions([subject])[0] for subject in subjects(images)]
    assert captioner.captions([]) == []


def test_a_prompt_that_is_no_task_is_refused(settings: CaptionSettings) -> None:
    with pytest.raises(ValueError, match=r"captions.prompt='a photo of': Florence-2 knows <CAPTION>, "):
        load_captioner(dataclasses.replace(settings, prompt="a photo of"))
