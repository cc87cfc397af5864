"""A picture and its masks in, verdicts out: how good each mask is, whether anything is missing, and where.

    verifier = shipped(weights_sha256)
    found = verifier(image, pixels_HWC=pixels, embedding=embedding)
    found.masks.expected_iou_N, found.masks.right_N, found.share_found, found.unexplained_RC

A verifier judges any segmenter's masks. Its numbers can be believed as they are for the model that it was
calibrated for; of another model's masks, `is_calibrated` is False and only their order is worth something.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.verify.coverage import Cover, Floats32
from maskmill.pipeline.verify.exhaustivity import SEEN, ShareFound, look
from maskmill.pipeline.verify.features import features
from maskmill.pipeline.verify.head import Head, Stored, Verdicts, load, save
from maskmill.pipeline.verify.runs import Runs

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import ImageEmbedding

SHIPPED = "nano_verifier.safetensors"
"""Beside nano's weights."""

_SHARE = "share."


@dataclass(frozen=True, eq=False)
class PictureVerdicts:
    """What is said of a picture.

    Attributes:
        masks: of each mask.
        share_found: share of the picture's objects that has a mask, expected; None without pixels.
        unexplained_RC: where something may lie without a mask, 0 to 1, over cells; None without pixels.
        is_calibrated: whether the verifier was calibrated for the model that made the masks.
    """

    masks: Verdicts
    share_found: float | None
    unexplained_RC: Floats32 | None
    is_calibrated: bool


@dataclass(frozen=True, eq=False)
class Verifier:
    """See the header.

    Args:
        head: of quality.
        share: of exhaustivity.
        model: sha256 of the weights whose masks it will be shown; None where that is unknown.
    """

    head: Head
    share: ShareFound
    model: str | None = None

    @property
    def is_calibrated(self) -> bool:
        """Whether its numbers were fitted on this model's masks."""
        return self.model == self.head.calibrated_for

    def __call__(
        self,
        image: AnnotatedImage,
        *,
        pixels_HWC: Pixels | None = None,
        embedding: ImageEmbedding | None = None,
    ) -> PictureVerdicts:
        """Judges a picture's masks.

        Args:
            image: the masks, with votes where they were kept.
            pixels_HWC: uint8[H, W, 3] of the picture, where they are at hand.
            embedding: of the whole picture, where it is at hand.

        Raises:
            ValueError: damaged run lengths.
        """
        cover = Cover.of(Runs.of(image))
        said = self.head(features(image, pixels_HWC=pixels_HWC, embedding=embedding, cover=cover))
        if pixels_HWC is None:
            return PictureVerdicts(said, None, None, self.is_calibrated)
        missing = look(image, said.right_N, pixels_HWC, cover=cover)
        share = float(self.share(missing.seen_S[None])[0])
        return PictureVerdicts(said, share, missing.unexplained_RC, self.is_calibrated)


def load_verifier(path: Path | None, model: str | None = None) -> Verifier:
    """A verifier from a file.

    Args:
        path: a file of `save_verifier`; None is the shipped one.
        model: sha256 of the weights whose masks it will be shown.

    Raises:
        ValueError: no such file, or none of this version's verifiers.
    """
    if path is None:
        with as_file(files("maskmill.pipeline.segmenters") / SHIPPED) as shipped:
            return _verifier(load(shipped), shipped, model)
    return _verifier(load(path), path, model)


def save_verifier(verifier: Verifier, path: Path, about: dict[str, object]) -> None:
    """Writes a verifier to one file.

    Args:
        verifier: fitted.
        path: of the file.
        about: what it was trained on, for people; JSON values.
    """
    share = {_SHARE + one.name: getattr(verifier.share, one.name) for one in fields(ShareFound)}
    save(Stored(verifier.head, share, about), path)


def _verifier(stored: Stored, path: Path, model: str | None) -> Verifier:
    try:
        share = ShareFound(**{one.name: stored.extra[_SHARE + one.name] for one in fields(ShareFound)})
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}: train the verifier again") from error
    if len(share.weight_S) != len(SEEN):
        raise ValueError(f"{path} looks at other numbers of a picture than this version: train it again")
    return Verifier(stored.head, share, model)
