"""What a fine-tuning and a distillation are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from maskmill.pipeline.checks import check_choice, check_fields, check_type, check_within
from maskmill.pipeline.settings.roles import LATER

ENCODERS = ("frozen", "lora", "all")
NUMBERS = ("float32", "bfloat16")
QUALITIES = ("scores", "expected_iou", "p_right")
IOU_TARGETS = ("own", "expected")

_TRAIN_RANGES = {
    "steps": (0, 10**7), "batch": (1, 65_536), "micro_batch": (1, 1024), "masks": (1, 64),
    "points": (0, 32), "bare_rounds": (0, 8), "box_share": (0.0, 1.0), "lr": (1e-9, 1.0),
    "warmup": (0, 10**6), "weight_decay": (0.0, 1.0), "layer_decay": (0.01, 1.0), "drop_path": (0.0, 0.9),
    "lora_rank": (1, 1024), "max_share": (0.01, 1.0), "min_area_px": (1, 10**9),
    "automatic_weight": (0.0, 1.0), "reviewed_repeat": (1, 1000), "checkpoint_every": (1, 10**6),
    "shuffle_shards": (1, 1024), "seed": (0, 2**62), "looks": (0.0, 1.0), "crops": (0.0, 1.0),
    "average": (0.0, 0.999999), "score_steps": (0, 10**6),
}  # fmt: skip
_DISTILL_RANGES = {
    "encoder_steps": (0, 10**7), "prompt_steps": (0, 10**7), "rounds": (1, 16), "batch": (1, 65_536),
    "masks": (1, 64), "lr": (1e-9, 1.0), "warmup": (0, 10**6), "weight_decay": (0.0, 1.0),
    "box_share": (0.0, 1.0), "iou_weight": (0.0, 100.0), "checkpoint_every": (1, 10**6), "seed": (0, 2**62),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of `retrain`: SAM's recipe, fine-tuning defaults.

    Args:
        steps: optimiser steps; 0 leaves the masks as they are, for `score_steps` or `calibrate` alone.
        batch: images a step, over all workers; a whole number of each worker's.
        micro_batch: images that a worker embeds and decodes at once; the rest of its share is accumulated.
        masks: most masks of an image, 1 to 64.
        points: correction points after the first prompt; SAM's is 8.
        bare_rounds: rounds without a new point, the last of them at the end; SAM's is 2.
        box_share: chance that the first prompt is a noised box; SAM's is 0.5.
        lr: highest learning rate; SAM's 8e-4 is for training from scratch.
        warmup: steps over which it rises; SAM's is 250.
        lr_drops: shares of the steps after which it falls to a tenth, joined by commas.
        weight_decay: AdamW's, on matrices.
        layer_decay: each encoder layer below the top learns slower by this factor; SAM's is 0.8.
        drop_path: most stochastic depth, at the top block; SAM's is 0.4 for ViT-H.
        encoder: "frozen", "lora" (low-rank changes of its linear layers), or "all".
        lora_rank: of those changes.
        focal_alpha: weight of object pixels in the focal loss, in (0, 1); None weighs both alike.
        max_share: masks of more of the image than this are left out; SAM's is 0.9.
        min_area_px: masks of fewer pixels are left out, at least 1.
        automatic_weight: loss weight of an automatic mask of perfect quality; a person's mask has 1.
        reviewed_repeat: times a reviewed image comes in an epoch; another comes once.
        flips: turn and mirror images at random.
        clip: largest norm of the gradient; None leaves it.
        number: "float32" or "bfloat16" (autocast).
        checkpointing: recompute activations (a ViT's blocks, the decoder in each round) instead of keeping
            them.
        checkpoint_every: steps between checkpoints.
        shuffle_shards: shards read together and shuffled.
        seed: of everything drawn.
        automatic_quality: what else an automatic mask weighs: "scores", predicted IoU x stability, or of the
            `verdicts` column its "expected_iou" or "p_right". No part of SAM's recipe, as all that follow.
        iou_target: what predicted IoU is taught by an automatic mask: its answer's IoU with that mask
            ("own", SAM's), or that times the mask's own expected IoU ("expected", of the `verdicts` column).
        ambiguous: points may be drawn where several of an image's masks lie, as SAM's are. Without, an
            automatic mask is asked for where it lies alone, else by its box.
        looks: share of images shown in other colours, blurred, noisy or compressed; the masks are those of
            the plain picture.
        crops: share of images of which a part is shown, half to all of each side.
        average: how much of the averaged weights stays at a step; they are what is kept. 0 keeps the last.
        score_steps: once masks are learned, fit the head of predicted IoU alone for so many steps, to its
            answers to one point of each mask (`iou_target`); 0 leaves it.
        calibrate: last, fit the curve that corrects predicted IoU, to the same.

    Raises:
        ValueError: a value out of its range.

    Source: Kirillov et al., Segment Anything (2023), appendix A, Training algorithm and Training recipe.
    """

    steps: int = 500
    batch: int = 4
    micro_batch: int = 1
    masks: int = 64
    points: int = 8
    bare_rounds: int = 2
    box_share: float = 0.5
    lr: float = 1e-4
    warmup: int = 25
    lr_drops: str | float = "0.67,0.95"
    weight_decay: float = 0.1
    layer_decay: float = 0.8
    drop_path: float = 0.0
    encoder: str = "all"
    lora_rank: int = 8
    focal_alpha: float | None = None
    max_share: float = 0.9
    min_area_px: int = 16
    automatic_weight: float = 0.5
    reviewed_repeat: int = 3
    flips: bool = True
    clip: float | None = 1.0
    number: str = "float32"
    checkpointing: bool = False
    checkpoint_every: int = 50
    shuffle_shards: int = 4
    seed: int = 0
    automatic_quality: str = field(default="scores", metadata=LATER)
    iou_target: str = field(default="own", metadata=LATER)
    ambiguous: bool = field(default=True, metadata=LATER)
    looks: float = field(default=0.0, metadata=LATER)
    crops: float = field(default=0.0, metadata=LATER)
    average: float = field(default=0.0, metadata=LATER)
    score_steps: int = field(default=0, metadata=LATER)
    calibrate: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self, _TRAIN_RANGES)
        check_choice("encoder", self.encoder, ENCODERS)
        check_choice("number", self.number, NUMBERS)
        check_choice("automatic_quality", self.automatic_quality, QUALITIES)
        check_choice("iou_target", self.iou_target, IOU_TARGETS)
        for name in ("ambiguous", "calibrate"):
            check_type(name, getattr(self, name), bool)
        if self.steps == 0 and self.score_steps == 0 and not self.calibrate:
            raise ValueError("steps, score_steps and calibrate are all off: there is nothing to train")
        if self.focal_alpha is not None:
            check_within("focal_alpha", self.focal_alpha, 0.0, 1.0)
        if self.clip is not None:
            check_within("clip", self.clip, 0.0, math.inf)
        if any(not 0 < share <= 1 for share in self.drops):
            raise ValueError(f"lr_drops={self.lr_drops!r}: write shares of the steps, such as 0.67,0.95")

    @property
    def asks_verdicts(self) -> bool:
        """Whether it needs the `verdicts` column."""
        return self.automatic_quality != "scores" or self.iou_target == "expected"

    @property
    def drops(self) -> tuple[float, ...]:
        """Where the learning rate falls, as shares of the steps.

        Raises:
            ValueError: `lr_drops` is no list of numbers.
        """
        try:
            return tuple(float(word) for word in str(self.lr_drops).split(",") if word.strip())
        except ValueError as exc:
            raise ValueError(f"lr_drops={self.lr_drops!r}: write shares joined by commas") from exc


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Settings of `distill`: EdgeSAM's two stages.

    Args:
        encoder_steps: of the first stage: the student's embedding follows the teacher's, by MSE.
        prompt_steps: of the second: both decode the same prompts, the student follows the masks.
        rounds: prompts in the loop: the first, then points where the two disagree.
        batch: images a step.
        masks: prompts an image.
        lr: highest learning rate of both stages.
        warmup: steps over which it rises in each stage.
        weight_decay: AdamW's.
        box_share: chance that the first prompt is a noised box.
        iou_weight: weight of predicted IoU's MSE; EdgeSAM leaves it out and warns of it.
        checkpoint_every: steps between checkpoints.
        seed: of everything drawn.
        kept: read the teacher's embeddings where the dataset keeps them (`embeddings.keep`); pictures are
            then neither turned nor mirrored, as the teacher saw them.

    Raises:
        ValueError: a value out of its range.

    Source: Zhou et al., EdgeSAM: Prompt-In-the-Loop Distillation for SAM (2023), section 3.
    """

    encoder_steps: int = 500
    prompt_steps: int = 500
    rounds: int = 3
    batch: int = 4
    masks: int = 16
    lr: float = 1e-3
    warmup: int = 25
    weight_decay: float = 0.01
    box_share: float = 0.5
    iou_weight: float = 1.0
    checkpoint_every: int = 100
    seed: int = 0
    kept: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self, _DISTILL_RANGES)
        check_type("kept", self.kept, bool)
        if self.encoder_steps + self.prompt_steps == 0:
            raise ValueError("encoder_steps and prompt_steps are both 0: there is nothing to train")
