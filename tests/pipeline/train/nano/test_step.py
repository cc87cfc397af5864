"""A step's loss: it can be descended, corrections train the mask prompt, a frozen trunk gets no gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.nano.dense import dense_heads
from maskmill.pipeline.train.nano.draw_prompts import PromptConfig, draw_prompts
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig, scene_sample
from maskmill.pipeline.train.nano.step import StepConfig, training_step
from maskmill.pipeline.train.pictures import together

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)
LITE = StudentConfig(image_size=64, embed_dim=32, decoder_heads=2, encoder="efficientnet_lite0", iou_knots=9)
PICTURES = [scene_sample(number, SceneConfig(64)) for number in (3, 8)]


def test_a_few_steps_on_one_picture_lower_its_loss() -> None:
    torch.manual_seed(0)
    sam = build_student(TINY).train()
    optimiser = torch.optim.AdamW(sam.parameters(), lr=2e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    prompts = draw_prompts(PICTURES[0], PromptConfig(count=6), generator)
    for _ in range(25):
        result = training_step(sam, PICTURES[0], prompts, generator, StepConfig(bfloat16=False))
        optimiser.zero_grad()
        result.loss.backward()
        optimiser.step()
        losses.append(float(result.loss.detach()))
    assert np.mean(losses[-3:]) < 0.7 * losses[0], losses
    assert 0 <= result.best_iou <= 1
    assert np.isnan(result.corrected_iou)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("config", [TINY, LITE])
def test_corrections_train_the_mask_prompt_and_everything_gets_a_gradient(
    config: StudentConfig, bfloat16: bool
) -> None:
    torch.manual_seed(0)
    sam = build_student(config).train()
    heads, batch = dense_heads(sam), together(PICTURES)
    for seed in range(4):  # the mask prompt is used in most steps, not in all
        generator = torch.Generator().manual_seed(seed)
        prompts = draw_prompts(batch, PromptConfig(count=8), generator)
        result = training_step(
            sam, batch, prompts, generator, StepConfig(corrections=2, bfloat16=bfloat16), heads
        )
        result.loss.backward()
    assert 0 <= result.corrected_iou <= 1
    without = {name for name, p in sam.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    unmatched = {name for name in without if name.startswith("mask_decoder.output_hypernetworks_mlps.")}
    assert without - unmatched <= {"prompt_encoder.point_embeddings.0.weight"}, without
    assert len({name.split(".")[2] for name in unmatched}) < 3  # of three outputs the best one learns
    assert all(p.grad is not None for p in heads.parameters())


def test_a_frozen_trunk_gets_no_gradient() -> None:
    torch.manual_seed(0)
    sam, generator = build_student(LITE).train(), torch.Generator().manual_seed(0)
    prompts = draw_prompts(PICTURES[0], PromptConfig(count=4), generator)
    training_step(sam, PICTURES[0], prompts, generator, StepConfig(freeze_trunk=True)).loss.backward()
    assert all(p.grad is None for p in sam.image_encoder.trunk.parameters())
    assert sam.image_encoder.from8.weight.grad is not None


def test_pictures_of_a_batch_are_trained_as_each_by_itself() -> None:
    torch.manual_seed(0)
    sam, losses = build_student(TINY).train(), []
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_prompts(one, PromptConfig(count=6, void_share=0.0), generator) for one in PICTURES]
    alone = [
        training_step(sam, one, prompts, generator, StepConfig(bfloat16=False))
        for one, prompts in zip(PICTURES, drawn, strict=True)
    ]
    losses = [float(one.loss.detach()) for one in alone]
    batch = together(PICTURES)
    most = batch.cells_BNss.shape[1]
    fields = {}
    for name in drawn[0].__dataclass_fields__:
        parts = [getattr(prompts, name) for prompts in drawn]
        if name == "under_BPN":
            parts = [torch.nn.functional.pad(p, (0, most - p.shape[-1])) for p in parts]
        fields[name] = torch.cat(parts)
    result = training_step(sam, batch, type(drawn[0])(**fields), generator, StepConfig(bfloat16=False))
    # the masks' loss is a mean over prompts; the boxes' counts differ by picture in the predicted IoU's alone
    assert float(result.loss.detach()) == pytest.approx(np.mean(losses), rel=1e-4)
