"""Distillation: the student starts as the teacher where it can, and learns from it alone."""

from __future__ import annotations

import numpy as np
import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.settings.train import DistillSettings, TrainSettings
from maskmill.pipeline.train.distill import STUDENTS, Projection, encoder_loss, prompt_loss, start_student
from maskmill.pipeline.train.images import Labelled, train_image

TEACHER = StudentConfig(
    image_size=128,
    widths=(8, 8, 16, 16),
    depths=(0, 1, 1, 1),
    embed_dim=32,
    decoder_heads=2,
    decoder_mlp_dim=32,
)
STUDENT = StudentConfig(
    image_size=64, widths=(8, 8, 8, 8), depths=(0, 0, 1, 0), embed_dim=32, decoder_heads=2, decoder_mlp_dim=32
)
SETTINGS = DistillSettings(rounds=2, masks=2)


def test_the_decoder_is_the_teacher_s_and_the_encoder_is_its_own() -> None:
    teacher = build_student(TEACHER)
    student = start_student(STUDENT, teacher, seed=0)
    assert torch.equal(student.mask_decoder.iou_token.weight, teacher.mask_decoder.iou_token.weight)
    assert student.image_encoder.img_size == 64


def test_one_image_s_prompts_teach_the_student_and_leave_the_teacher() -> None:
    teacher = build_student(TEACHER).requires_grad_(False)
    student = start_student(STUDENT, teacher, seed=0)
    masks = np.zeros((2, 64, 64), np.bool_)
    masks[0, 4:30, 4:30] = masks[1, 34:60, 20:50] = True
    given = Labelled(
        "a", np.full((64, 64, 3), 90, np.uint8), masks, np.ones(2, np.float32), np.zeros(2, np.bool_)
    )
    small, large = (train_image(given, 3, size, TrainSettings()) for size in (64, 128))
    assert small is not None and large is not None
    theirs = teacher.image_encoder(torch.from_numpy(large.image_3SS)[None])
    ours = student.image_encoder(torch.from_numpy(small.image_3SS)[None])
    projected = Projection(32, 32)(ours, theirs.shape[-1])
    assert projected.shape == theirs.shape
    assert float(encoder_loss(theirs, theirs)) == 0.0
    loss = prompt_loss(teacher, student, theirs, ours, small, SETTINGS)
    loss.backward()
    assert float(loss.detach()) > 0 and all(one.grad is None for one in teacher.parameters())
    head = student.mask_decoder.iou_prediction_head.layers[-1].weight.grad
    stem = student.image_encoder.stem[0].weight.grad
    assert head is not None and head.any() and stem is not None and stem.any()


def test_a_student_that_is_its_teacher_has_little_to_learn() -> None:
    teacher = build_student(STUDENT).requires_grad_(False)
    masks = np.zeros((1, 64, 64), np.bool_)
    masks[0, 4:30, 4:30] = True
    given = Labelled(
        "a", np.full((64, 64, 3), 90, np.uint8), masks, np.ones(1, np.float32), np.zeros(1, np.bool_)
    )
    image = train_image(given, 0, 64, TrainSettings())
    assert image is not None
    other = start_student(STUDENT, build_student(TEACHER), seed=1)
    embedding = teacher.image_encoder(torch.from_numpy(image.image_3SS)[None])
    same = float(prompt_loss(teacher, teacher, embedding, embedding, image, SETTINGS))
    off = float(prompt_loss(teacher, other, embedding, embedding, image, SETTINGS).detach())
    assert same < off


def test_shapes_by_name_build() -> None:
    sizes = {
        name: sum(p.numel() for p in build_student(config).image_encoder.parameters())
        for name, config in STUDENTS.items()
    }
    assert sizes["tiny"] < 0.4 * sizes["nano"]
