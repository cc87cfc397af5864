"""What a training of a student begins from: weights and photographs, made once a folder.

The encoder is EfficientNet-Lite0's pretrained trunk. From a student of nano's first encoder, the new one
takes prompt encoder and decoder, and its fusion is fitted to that one's features; from one of this encoder
it takes all; from nothing, all but the trunk is fresh.
"""

from __future__ import annotations

from pathlib import Path

import torch
from segment_anything.modeling import Sam

from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.segmenters.student import (
    StudentConfig,
    build_student,
    load_student,
    save_student,
    stored_config,
)
from maskmill.pipeline.train.nano.pictures.feed import REGION_CROPS
from maskmill.pipeline.train.nano.pictures.photo_crops import LabelledPhoto, PhotoStore
from maskmill.pipeline.train.nano.pictures.photographs import (
    keep_photographs,
    kept_photographs,
    to_train,
    with_regions,
    with_segments,
)
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig, scene_sample
from maskmill.pipeline.train.nano.pretrained_trunk import (
    fold_into,
    pretrained_student,
    stored_tensors,
    take_sam_pixels,
)

FIT_PICTURES = 64


def prepare(student: StudentConfig, out: Path, start_from: Path | None, photos: list[Truth]) -> None:
    """Partition the photographs and begin the student, once a folder.

    Args:
        student: the shape of a student that begins from nothing.
        out: gets `photographs.pt` and `start.safetensors`.
        start_from: a student's weights, or None.
        photos: with people's masks; those held apart are left out.
    """
    apart = to_train(photos)
    regions = with_regions(apart)
    keep_photographs(out / "photographs.pt", regions, with_segments(apart))
    sam = begun_student(student, start_from, regions)
    kept = student if start_from is None else _begun_config(student, start_from)
    save_student(sam, kept, out / "start.safetensors")


def check_the_same(kept: Path, photos: list[Truth]) -> None:
    """Photographs are read once a folder: others given later would go unused.

    Args:
        kept: the folder's `photographs.pt`.
        photos: given now.

    Raises:
        ValueError: another number of them than the folder was begun with.
    """
    begun, given = len(kept_photographs(kept)[1]), len(to_train(photos))
    if begun != given:
        raise ValueError(
            f"{kept.parent} was begun with {begun} photographs with segments, now {given} are given: "
            "give the same ones, or begin in another folder"
        )


def _begun_config(student: StudentConfig, start_from: Path) -> StudentConfig:
    stored = stored_config(start_from)
    return stored if stored.encoder == student.encoder else student


def begun_student(student: StudentConfig, start_from: Path | None, regions: list[LabelledPhoto]) -> Sam:
    """The student that a training begins with; see the head of this file.

    Args:
        student: its shape, where `start_from` is none of this encoder.
        start_from: a student's weights, or None.
        regions: photographs to fit the fusion on.
    """
    torch.manual_seed(0)
    if start_from is None:
        sam = build_student(student)
        if student.encoder == "efficientnet_lite0":
            fold_into(sam.image_encoder.trunk, stored_tensors())
            take_sam_pixels(sam.image_encoder.trunk)
        return sam
    older = load_student(start_from)
    if stored_config(start_from).encoder == student.encoder:
        return older
    generator = torch.Generator().manual_seed(0)
    store = PhotoStore(regions, torch.device("cpu"))
    photos = store.draw(FIT_PICTURES // 2, student.image_size, REGION_CROPS, generator).normalised()
    scenes = (
        scene_sample(2 * i, SceneConfig(student.image_size)).normalised() for i in range(FIT_PICTURES // 2)
    )
    return pretrained_student(student, older, [*torch.split(photos, 4), *scenes])[0]
