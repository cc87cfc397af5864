"""BLIP's texts and scores are those of transformers' own classes; a text depends on nothing but its seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, BlipForConditionalGeneration, BlipForImageTextRetrieval

from maskmill.pipeline.settings.words import CaptionSettings
from maskmill.pipeline.weights.errors import MissingWeights, WrongWeights
from maskmill.pipeline.words.captioners import load_captioner
from maskmill.pipeline.words.captioners.drawing import GumbelNucleus, seeded
from tests.pipeline.words.captioners.pictures import subjects
from tests.tiny_models import save_blip

TEXTS = ("a red cat", "two dogs sitting next to a small green house", "blue")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> CaptionSettings:
    folder = tmp_path_factory.mktemp("blip")
    captioner = save_blip(folder / "captioner", retrieval=False)
    matcher = save_blip(folder / "filter", retrieval=True, seed=1)
    return CaptionSettings(model=str(captioner), filter=str(matcher), num_candidates=2, max_tokens=12)


def own_classes(folder: str | None, kind: Any) -> tuple[Any, Any]:
    assert folder is not None
    maker: Any = AutoProcessor
    return kind.from_pretrained(folder).eval().requires_grad_(False), maker.from_pretrained(folder)


@pytest.mark.parametrize("prompt", [None, "a picture of"])
def test_beams_are_transformers_own_token_for_token(
    settings: CaptionSettings, images: list[Any], prompt: str | None
) -> None:
    beams = dataclasses.replace(settings, strategy="beam", num_beams=4, prompt=prompt)
    found = load_captioner(beams)[0].captions(subjects(images))
    model, processor = own_classes(settings.model, BlipForConditionalGeneration)
    text = {} if prompt is None else {"text": [prompt] * len(images)}
    inputs = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt", **text)
    tokens = model.generate(
        **inputs, num_beams=4, num_return_sequences=2, min_new_tokens=5, max_new_tokens=12, do_sample=False
    )
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    assert [text for pair in found for text in pair] == texts
    assert len(set(texts)) > 1 and (prompt is None or all(text.startswith(prompt) for text in texts))


def test_nucleus_is_transformers_own_sampling_token_for_token(
    settings: CaptionSettings, images: list[Any], gumbel_draws: list[torch.Generator]
) -> None:
    """The same loop, top-p and lengths; only the source of randomness is given."""
    found = load_captioner(settings)[0].captions(subjects(images))
    gumbel_draws += [seeded(0, f"{i:09d}", number) for i in range(3) for number in range(2)]
    model, processor = own_classes(settings.model, BlipForConditionalGeneration)
    inputs = processor(
        images=[Image.fromarray(image) for image in images for _ in range(2)], return_tensors="pt"
    )
    tokens = model.generate(**inputs, do_sample=True, top_p=0.9, top_k=0, min_new_tokens=5, max_new_tokens=12)
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    assert [text for pair in found for text in pair] == texts and len(set(texts)) == 6


def test_a_text_depends_on_its_seed_and_image_alone(settings: CaptionSettings, images: list[Any]) -> None:
    captioner = load_captioner(settings)[0]
    together = captioner.captions(subjects(images))
    alone = [captioner.captions([subject])[0] for subject in subjects(images)]
    assert together == alone
    other = load_captioner(dataclasses.replace(settings, seed=1))[0].captions(subjects(images))
    assert all(texts != others for texts, others in zip(together, other, strict=True))
    assert captioner.captions([]) == []


def test_draws_follow_the_distribution_and_stay_in_the_nucleus() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    scores = probabilities.log().repeat(4000, 1)
    generators = [seeded(0, "key", number) for number in range(len(scores))]
    drawn = GumbelNucleus(0.9, generators)(torch.zeros(1, 1), scores).argmax(dim=-1)
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    expected = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    assert torch.allclose(shares, expected, atol=0.03) and shares[3] == 0


def test_matching_scores_are_transformers_own(settings: CaptionSettings, images: list[Any]) -> None:
    _, text_filter = load_captioner(settings)
    assert text_filter is not None
    found = text_filter.scores(images, [TEXTS, (), TEXTS[:1]])
    model, processor = own_classes(settings.filter, BlipForImageTextRetrieval)
    assert found[1] == ()
    for image, texts, scores in ((images[0], TEXTS, found[0]), (images[2], TEXTS[:1], found[2])):
        for text, score in zip(texts, scores, strict=True):
            inputs = processor(images=Image.fromarray(image), text=text, return_tensors="pt")
            logits = model(**inputs, use_itm_head=True).itm_score
            assert score == pytest.approx(float(logits.softmax(dim=-1)[0, 1]), abs=1e-5)
    assert len({round(score, 4) for scores in found for score in scores}) > 2


def test_a_text_longer_than_the_model_reads_is_judged_by_its_beginning(
    settings: CaptionSettings, images: list[Any]
) -> None:
    _, text_filter = load_captioner(settings)
    assert text_filter is not None
    ((long, longer),) = text_filter.scores(images[:1], [["dog " * 100, "dog " * 2000]])
    assert long == pytest.approx(longer, abs=1e-6) and 0 < long < 1


def test_models_that_cannot_be_used_are_refused(settings: CaptionSettings, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="captioner"):
        load_captioner(dataclasses.replace(settings, model=str(tmp_path / "nowhere")))
    with pytest.raises(WrongWeights, match="filter"):  # a captioner has no matching head
        load_captioner(dataclasses.replace(settings, filter=settings.model))
    with pytest.raises(ValueError, match="this machine has"):
        load_captioner(dataclasses.replace(settings, device="cuda:99"))
