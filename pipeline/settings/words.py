"""Settings of the word stages: captions, labels. Frozen dataclasses with checked ranges.

A section is off while its first field is None ("none" in TOML). Fields marked neutral never change what is
written and stay out of fingerprints; a model's weights enter them by sha256 and a vocabulary by its phrases,
never by where they lie. Imports neither torch nor numpy.
"""

from __future__ import annotations

import dataclasses

from maskmill.pipeline.checks import check_choice, check_int, check_range, check_type
from maskmill.pipeline.settings.roles import NEUTRAL, check_model, check_role

CAPTIONS_REVISION = 1
"""Raised by hand when the caption stage gives other texts or scores for the same settings and weights."""

LABELS_REVISION = 1
"""Raised by hand when the ground stage gives other labels for the same settings and weights."""

BOXES_REVISION = 2
"""Raised by hand when given boxes give other masks for the same settings and weights."""

NAMES_REVISION = 1
"""Raised by hand when the name stage gives other names for the same settings and weights."""

NAME_CROPS = ("auto", "all", "none")
LABEL_TEXTS = ("captions", "vocabulary", "both")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """How images are captioned and captions filtered (CapFilt); `model` None turns the column off.

    Args:
        model: folder or hub id of a captioner: BLIP, BLIP-2 or Florence-2. Neutral: its sha256 stands for it.
        filter: folder or hub id of a BLIP image-text matching model; None keeps every text, unscored.
            Neutral: its sha256 stands for it.
        threshold: texts must match by at least this probability, in [0, 1].
        strategy: "nucleus" draws texts by their probability, "beam" takes the likeliest.
        num_candidates: texts made for an image or crop, 1 to 32.
        top_p: the share of probability that "nucleus" draws from, in (0, 1].
        num_beams: beams of "beam", at least num_candidates, to 32.
        min_tokens, max_tokens: length of a text without the prompt, 1 to 256.
        prompt: what every text begins with; None is free. Of Florence-2 the task, "<CAPTION>" by default.
        seed: with an image's key and the crop, of its draws; runs repeat exactly.
        source_text: judge the text that came with the image too.
        max_chars: longer texts are cut at a word, 16 to 10,000.
        min_crop_share: masks that cover at least this share of the image are captioned too, each by the crop
            of its box, in (0, 1]; None captions whole images alone.
        max_crops: the largest masks' crops at most, 1 to 1000.
        batch_size: images and crops together, at least 1; halved where memory runs out. Neutral.
        device, dtype: as of the segmenter; the device is neutral.

    Raises:
        ValueError: a value out of its range.

    Source: Li et al., BLIP (2022), section 3.3: nucleus sampling with p = 0.9, filter by the ITM head.
    """

    model: str | None = dataclasses.field(default=None, metadata=NEUTRAL)
    filter: str | None = dataclasses.field(default=None, metadata=NEUTRAL)
    threshold: float = 0.5
    strategy: str = "nucleus"
    num_candidates: int = 1
    top_p: float = 0.9
    num_beams: int = 3
    min_tokens: int = 5
    max_tokens: int = 20
    prompt: str | None = None
    seed: int = 0
    source_text: bool = True
    max_chars: int = 1000
    min_crop_share: float | None = None
    max_crops: int = 16
    batch_size: int = dataclasses.field(default=8, metadata=NEUTRAL)
    device: str = dataclasses.field(default="auto", metadata=NEUTRAL)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_model("model", self.model)
        check_model("filter", self.filter)
        check_range("threshold", self.threshold, 0.0, 1.0)

        check_choice("strategy", self.strategy, ("nucleus", "beam"))
        check_int("num_candidates", self.num_candidates, 1, 32)
        check_range("top_p", self.top_p, 1e-6, 1.0)
        check_int("num_beams", self.num_beams, 1, 32)
        if self.strategy == "beam" and self.num_beams < self.num_candidates:
            raise ValueError(
                f"num_beams={self.num_beams} gives fewer than num_candidates={self.num_candidates} texts: "
                "use at least as many beams"
            )
        check_int("min_tokens", self.min_tokens, 1, 256)
        check_int("max_tokens", self.max_tokens, self.min_tokens, 256)

        check_int("seed", self.seed, 0, 2**31 - 1)
        check_type("source_text", self.source_text, bool)
        check_int("max_chars", self.max_chars, 16, 10_000)
        if self.min_crop_share is not None:
            check_range("min_crop_share", self.min_crop_share, 1e-6, 1.0)
        check_int("max_crops", self.max_crops, 1, 1000)
        check_role(self.batch_size, self.device, self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How texts are grounded: boxes found by a detector, masks by the segmenter; `model` None is off.

    Args:
        model: folder or hub id of the detector: (MM-)Grounding DINO, OWLv2, OWL-ViT or OmDet-Turbo. Neutral:
            its sha256 stands for it.
        text: what is looked for: the phrases of the image's "captions", a fixed "vocabulary", or "both".
        vocabulary: phrases, or what names them: "coco", "lvis", or a text file with a phrase a line.
            Neutral: the phrases stand for it.
        box_threshold: boxes must score above this, in [0, 1].
        text_threshold: tokens of a box's phrase must score above this, in [0, 1]; Grounding DINO's alone.
        box_nms: box IoU above which the worse of two boxes is dropped, in [0, 1].
        per_class: boxes compete only with boxes of the same label; else with all, as in Grounded-SAM's demo.
        max_boxes: the best boxes of an image that are kept at most, 1 to 10,000.
        link_iou: a grid mask of at least this IoU takes the label; below it the box's own mask is stored, in
            (0, 1].
        predicted_iou, stability, min_area_px: what boxes' own masks must pass, as in `MaskSettings`: above
            the first, at least the others; 0 keeps all. None is what the grid's masks must pass. Neutral:
            fingerprints have the values that are in force, where they are not 0.
        batch_size: images together, at least 1; halved where memory runs out. Neutral.
        device, dtype: as of the segmenter; the device is neutral.

    Raises:
        ValueError: a value out of its range.

    Source: Liu et al., Grounding DINO (2023); Ren et al., Grounded SAM (2024).
    """

    model: str | None = dataclasses.field(default=None, metadata=NEUTRAL)
    text: str = "captions"
    vocabulary: str | tuple[str, ...] | None = dataclasses.field(default=None, metadata=NEUTRAL)
    box_threshold: float = 0.25
    text_threshold: float = 0.20
    box_nms: float = 0.5
    per_class: bool = False
    max_boxes: int = 300
    link_iou: float = 0.9
    predicted_iou: float | None = dataclasses.field(default=None, metadata=NEUTRAL)
    stability: float | None = dataclasses.field(default=None, metadata=NEUTRAL)
    min_area_px: int | None = dataclasses.field(default=None, metadata=NEUTRAL)
    batch_size: int = dataclasses.field(default=4, metadata=NEUTRAL)
    device: str = dataclasses.field(default="auto", metadata=NEUTRAL)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_model("model", self.model)
        check_choice("text", self.text, LABEL_TEXTS)
        if self.model is not None and self.text != "captions" and not self.vocabulary:
            raise ValueError(
                f"text={self.text!r} needs a vocabulary: give vocabulary a list of phrases, a text file with "
                'a phrase a line, "coco" or "lvis"'
            )
        for name in ("box_threshold", "text_threshold", "box_nms"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_type("per_class", self.per_class, bool)
        check_int("max_boxes", self.max_boxes, 1, 10_000)
        check_range("link_iou", self.link_iou, 1e-6, 1.0)
        for name in ("predicted_iou", "stability"):
            if (least := getattr(self, name)) is not None:
                check_range(name, least, 0.0, 1.0)
        if self.min_area_px is not None:
            check_int("min_area_px", self.min_area_px, 0, 1_000_000)
        check_role(self.batch_size, self.device, self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NameSettings:
    """How masks are named in an open vocabulary; `model` None turns the column off.

    Args:
        model: folder or hub id of a CLIP or SigLIP model. Neutral: its sha256 stands for it.
        vocabulary: the words, or what names them: "coco", "lvis", or a text file with a word a line.
            Neutral: the words stand for it.
        templates: prompts with {} where the word goes; a word's features are the mean over them.
        top_k: names of a mask that are kept, 1 to 100.
        dense_side: px of the longer side of the image that the dense map is made of, 32 to 4096.
        crops: which masks are named again from crops: "auto" (the small and the uncertain), "all", "none".
        small_patches: a mask under fewer patches of the dense map than this is small, 0 to 10,000.
        uncertain: a mask whose best word leads the next by less than this, in logits, is uncertain, 0 to 100.
        max_crops: masks of an image that are cropped at most, the smallest first, 0 to 100,000.
        margin: what crops show around a mask's box, as a share of its longer side, 0 to 2.
        batch_size: crops together, at least 2; halved where memory runs out. Neutral.
        device, dtype: as of the segmenter; the device is neutral.

    Raises:
        ValueError: a value out of its range.

    Source: Zhou et al., Extract Free Dense Labels from CLIP (2022), for the dense map.
    """

    model: str | None = dataclasses.field(default=None, metadata=NEUTRAL)
    vocabulary: str | tuple[str, ...] = dataclasses.field(default="coco", metadata=NEUTRAL)
    templates: tuple[str, ...] = ("a photo of a {}.",)
    top_k: int = 5
    dense_side: int = 448
    crops: str = "auto"
    small_patches: float = 4.0
    uncertain: float = 1.0
    max_crops: int = 64
    margin: float = 0.1
    batch_size: int = dataclasses.field(default=32, metadata=NEUTRAL)
    device: str = dataclasses.field(default="auto", metadata=NEUTRAL)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_model("model", self.model)
        if not self.vocabulary:
            raise ValueError(
                'vocabulary is empty: give a list of words, a text file with a word a line, "coco" or "lvis"'
            )
        if not self.templates or any("{}" not in template for template in self.templates):
            raise ValueError(
                f"templates={list(self.templates)}: give at least one, each with {{}} where the word goes"
            )
        check_int("top_k", self.top_k, 1, 100)
        check_int("dense_side", self.dense_side, 32, 4096)
        check_choice("crops", self.crops, NAME_CROPS)
        check_range("small_patches", self.small_patches, 0.0, 10_000.0)
        check_range("uncertain", self.uncertain, 0.0, 100.0)
        check_int("max_crops", self.max_crops, 0, 100_000)
        check_range("margin", self.margin, 0.0, 2.0)
        check_role(self.batch_size, self.device, self.dtype)
        check_int("batch_size", self.batch_size, 2, 65_536)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxSettings:
    """Masks from given boxes and points instead of the grid; `file` None is the grid.

    Args:
        file: a COCO detection file, a local path or s3:// address that every worker reaches. Neutral: its
            sha256 stands for it.
        min_score: boxes whose `score` is lower are dropped, in [0, 1].
        batch_size: prompts decoded together, at least 1; halved where memory runs out. Neutral.

    Raises:
        ValueError: a value out of its range.
    """

    file: str | None = dataclasses.field(default=None, metadata=NEUTRAL)
    min_score: float = 0.0
    batch_size: int = dataclasses.field(default=64, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        if self.file is not None and (not isinstance(self.file, str) or not self.file.strip()):
            raise ValueError(f"file={self.file!r} is no path: name a COCO detection file, or none")
        check_range("min_score", self.min_score, 0.0, 1.0)
        check_int("batch_size", self.batch_size, 1, 65_536)
