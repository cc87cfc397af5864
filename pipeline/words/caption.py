"""Captions of images, and of the crops of their large masks, filtered as CapFilt does.

A captioner writes texts, a filter judges them and the text that came with the image; every text that passes
is kept with its score and origin, the best one is the caption, and what fails is kept apart. Without a filter
all texts are kept, unscored, and the caption is the model's first.

It doesn't know which models (captioners/), nor whether a text is true.

Source: Li et al., BLIP (2022), section 3.3 (CapFilt).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE, to_xywh, to_xyxy
from maskmill.pipeline.machine.batches import Batches
from maskmill.pipeline.pixels import Pixels, check_rgb
from maskmill.pipeline.words.text import clean_text

if TYPE_CHECKING:
    from maskmill.pipeline.annotation import AnnotatedImage
    from maskmill.pipeline.settings.words import CaptionSettings

BoxXyxy = tuple[int, int, int, int]

MODEL = "model"
SOURCE = "source"


@dataclasses.dataclass(frozen=True)
class CaptionText:
    """A text about an image.

    Args:
        text: cleaned, never empty.
        score: probability that text and image match, in [0, 1]; None where nothing judged it.
        origin: "model" or "source", which is what came with the image.
    """

    text: str
    score: float | None
    origin: str


@dataclasses.dataclass(frozen=True)
class Captions:
    """The texts of an image or a crop; `texts` passed the filter, `dropped` did not."""

    texts: tuple[CaptionText, ...]
    dropped: tuple[CaptionText, ...] = ()

    @property
    def caption(self) -> str | None:
        """The best text: the highest score; unscored, the model's first. None if none passed."""
        best = max(
            self.texts,
            key=lambda text: (-1.0 if text.score is None else text.score, text.origin == MODEL),
            default=None,
        )
        return best.text if best is not None else None


@dataclasses.dataclass(frozen=True)
class CropCaptions:
    """Captions of a mask's box.

    Args:
        mask: place of the mask in the image's annotations.
        box_xyxy: left, top, right, bottom in px of the image, right and bottom excluded.
    """

    mask: int
    box_xyxy: BoxXyxy
    captions: Captions


@dataclasses.dataclass(frozen=True)
class ImageCaptions:
    """All captions of an image of this size in px."""

    width: int
    height: int
    whole: Captions
    crops: tuple[CropCaptions, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is to be captioned.

    Args:
        key: seeds its draws.
        pixels_HWC: uint8 RGB.
        source_text: what came with it.
    """

    key: str
    pixels_HWC: Pixels
    source_text: str | None = None


class Captioner(Protocol):
    """The captioner role."""

    def captions(self, subjects: Sequence[Subject]) -> list[tuple[str, ...]]:
        """The same number of texts for each, as the model spells them; the caller bounds how many."""
        ...


class TextFilter(Protocol):
    """The filter role."""

    def scores(self, images: Sequence[Pixels], texts: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """For each image, the probability that each of its texts matches it; there may be none."""
        ...


class CapFilt:
    """Captions images in batches; batches shrink where memory runs out.

    Args:
        captioner: writes texts.
        text_filter: judges them; None keeps all.
        settings: thresholds and sizes.
    """

    def __init__(
        self, captioner: Captioner, text_filter: TextFilter | None, settings: CaptionSettings
    ) -> None:
        self._captioner = captioner
        self._filter = text_filter
        self._settings = settings
        self._caption_batches = Batches(settings.batch_size, "captioner")
        self._filter_batches = Batches(settings.batch_size, "caption filter")

    def __call__(self, subjects: Sequence[Subject]) -> list[Captions]:
        """The captions of each subject.

        Raises:
            ValueError: pixels that are not uint8 RGB.
            torch.OutOfMemoryError, RuntimeError: memory runs out even for one subject.
        """
        for subject in subjects:
            check_rgb(subject.pixels_HWC)
        written = self._caption_batches.run(subjects, self._captioner.captions)
        unscored = [self._candidates(*pair) for pair in zip(subjects, written, strict=True)]
        if self._filter is None:
            return [Captions(texts) for texts in unscored]
        jobs = list(zip((subject.pixels_HWC for subject in subjects), unscored, strict=True))
        scores = self._filter_batches.run(jobs, self._scores)
        return [
            self._judged(texts, image_scores) for texts, image_scores in zip(unscored, scores, strict=True)
        ]

    def _candidates(self, subject: Subject, written: Iterable[str]) -> tuple[CaptionText, ...]:
        """The texts of a subject, each once, the source's own first."""
        source = [subject.source_text or ""] if self._settings.source_text else []
        spelled = [(text, SOURCE) for text in source] + [(text, MODEL) for text in written]
        origins: dict[str, str] = {}
        for text, origin in spelled:
            cleaned = clean_text(text, max_chars=self._settings.max_chars)
            if cleaned:
                origins.setdefault(cleaned, origin)
        return tuple(CaptionText(text, None, origin) for text, origin in origins.items())

    def _scores(self, jobs: Sequence[tuple[Pixels, tuple[CaptionText, ...]]]) -> list[tuple[float, ...]]:
        assert self._filter is not None
        return self._filter.scores([job[0] for job in jobs], [[text.text for text in job[1]] for job in jobs])

    def _judged(self, texts: Sequence[CaptionText], scores: Sequence[float]) -> Captions:
        judged = [dataclasses.replace(text, score=score) for text, score in zip(texts, scores, strict=True)]
        passes = [score >= self._settings.threshold for score in scores]
        return Captions(
            texts=tuple(text for text, passed in zip(judged, passes, strict=True) if passed),
            dropped=tuple(text for text, passed in zip(judged, passes, strict=True) if not passed),
        )


def large_masks(image: AnnotatedImage, *, min_share: float, max_masks: int) -> list[tuple[int, BoxXyxy]]:
    """Place and box of the masks that cover at least `min_share` of an image, the largest first.

    Args:
        image: with its masks.
        min_share: of the image's pixels, in (0, 1].
        max_masks: at most so many.

    Returns:
        Boxes are left, top, right, bottom in px, right and bottom excluded, within the image.
    """
    places = sorted(range(len(image.annotations)), key=lambda place: -image.annotations[place].area_px)
    enough_px = min_share * image.width * image.height
    large = (place for place in places if image.annotations[place].area_px >= enough_px)
    return [(place, _box(image, place)) for place in islice(large, max_masks)]


def _box(image: AnnotatedImage, place: int) -> BoxXyxy:
    x, y, width, height = image.annotations[place].bbox_xywh
    left, top = max(0, int(x)), max(0, int(y))
    right, bottom = min(image.width, int(x + width) + 1), min(image.height, int(y + height) + 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def captions_to_record(captions: ImageCaptions, *, image_id: int, file_name: str) -> dict[str, Any]:
    """What the captions column stores of an image, ready for `json.dumps`; a crop names its mask's id."""

    return {
        "image": {
            "image_id": image_id,
            "width": captions.width,
            "height": captions.height,
            "file_name": file_name,
        },
        **_captions_to_record(captions.whole),
        "crops": [
            {
                "mask": image_id * ANNOTATION_IDS_PER_IMAGE + crop.mask,
                "box": list(to_xywh(crop.box_xyxy)),
                **_captions_to_record(crop.captions),
            }
            for crop in captions.crops
        ],
    }


def _captions_to_record(captions: Captions) -> dict[str, Any]:
    return {
        "caption": captions.caption,
        "texts": [dataclasses.asdict(text) for text in captions.texts],
        "dropped": [dataclasses.asdict(text) for text in captions.dropped],
    }


def captions_from_record(record: Mapping[str, Any]) -> ImageCaptions:
    """The inverse of `captions_to_record`.

    Raises:
        ValueError: a field that lacks or has another form.
    """
    try:
        info = record["image"]
        first_id = int(info["image_id"]) * ANNOTATION_IDS_PER_IMAGE
        return ImageCaptions(
            width=int(info["width"]),
            height=int(info["height"]),
            whole=_captions_from_record(record),
            crops=tuple(_crop_from_record(crop, first_id) for crop in record["crops"]),
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a captions record: {error!r}") from error


def _crop_from_record(crop: Mapping[str, Any], first_id: int) -> CropCaptions:
    box_xyxy = to_xyxy([int(value) for value in crop["box"]])
    return CropCaptions(int(crop["mask"]) - first_id, box_xyxy, _captions_from_record(crop))


def _captions_from_record(record: Mapping[str, Any]) -> Captions:
    texts, dropped = (
        tuple(CaptionText(text["text"], text["score"], text["origin"]) for text in record[name])
        for name in ("texts", "dropped")
    )
    return Captions(texts, dropped)
