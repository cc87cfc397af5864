"""Boxes and points that came with the images: a COCO detection file, matched to pictures by file name.

Read are COCO's `images` (`id`, `file_name`, and `width` and `height` to scale by), `annotations` and
`categories`: `bbox` ([x, y, w, h]), `category_id`, `score` (as detectors add it), `iscrowd`, and, for points,
`point_coords` ([[x, y], ...]) with `point_labels` (1 inside, 0 outside; all inside where they lack).
An annotation may have a box, points or both; one that can't be used is dropped and counted, its image's
others stand. Pictures are matched by the one rule (foreign/matching.py). Boxes follow a picture that ingest
shrank.

What it doesn't know: detections in other formats, keypoints, rotated boxes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.words.text import clean_text
from maskmill.storage.errors import InputError, ObjectNotFound
from maskmill.storage.stores.open import absolute_address, address_store
from maskmill.workers.foreign.annotations import (
    BadAnnotation,
    ForeignAnnotation,
    ForeignImage,
    ForeignSet,
    Id,
    score_of,
)
from maskmill.workers.foreign.coco import parse_coco
from maskmill.workers.foreign.images.codec import DecodeError
from maskmill.workers.foreign.matching import Matching, match
from maskmill.workers.foreign.pictures import nothing_matched, pictures_of
from maskmill.workers.foreign.shapes import box_xywh, points_K2

if TYPE_CHECKING:
    from maskmill.storage.plan.plan import Plan

MAX_LABEL_CHARS = 200

_SIZE_TOLERANCE = 0.02
"""Ingest rounds sides to pixels: both may shrink by slightly different factors."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Given:
    """What was given for one object.

    Args:
        id: of the annotation in the file; None where it has none that is a number.
        label: its category's name.
        box_xyxy: float64[4] in px, None without a box.
        points_K2, labels_K: float64[K, 2] and int64[K], None without points.
        score: of the detector that made it.
    """

    id: int | None
    label: str | None
    box_xyxy: Floats | None
    points_K2: Floats | None = None
    labels_K: npt.NDArray[np.int64] | None = None
    score: float | None = None


@dataclass(frozen=True)
class GivenImage:
    """An image of the file; sides None where the file doesn't say."""

    file_name: str
    width: int | None
    height: int | None
    objects: tuple[Given, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenBoxes:
    """A file's images.

    Attributes:
        address: of the file.
        given: as it was read.
        images: with the objects that can be used, in the file's order.
    """

    address: str
    given: ForeignSet
    images: tuple[GivenImage, ...]

    def matched(self, plan: Plan) -> Matching:
        """Which of its images are which of the dataset's pictures. Raises DamagedObject."""
        return match(self.given.names, pictures_of(plan))


def check_boxes(boxes: GivenBoxes, plan: Plan) -> str:
    """Says what a file of boxes is good for, before work starts.

    Args:
        boxes: of the file.
        plan: of the dataset.

    Raises:
        InputError: none of its images is in the dataset.
        DamagedObject: the plan cannot be read.
    """
    matching = boxes.matched(plan)
    if not matching.entry_of:
        raise InputError(f"boxes file {boxes.address}: {nothing_matched(boxes.given, matching, plan)}")
    lost = boxes.given.left_out.counts
    told = ", ".join(f"{reason} {count}" for reason, count in lost.items())
    return f"boxes file {boxes.address}: {matching.explain(boxes.given.names)}" + (
        f"; annotations of none of them: {told}" if told else ""
    )


def absolute(address: str) -> str:
    """The address of a file of given boxes, the same in whatever folder it is read."""
    return absolute_address(address)


def read_bytes(address: str) -> bytes:
    """A file of given boxes. Raises InputError where it is missing."""
    store, name = address_store(absolute(address))
    try:
        return store.read(name)
    except ObjectNotFound as error:
        raise InputError(f"boxes file {address} does not exist: check the path") from error


def sha256_of(address: str) -> str:
    """The file's sha256 in hex, for fingerprints. Raises InputError."""
    return hashlib.sha256(read_bytes(address)).hexdigest()


def read_given_boxes(address: str, *, min_score: float = 0.0) -> GivenBoxes:
    """Reads a COCO detection file.

    Args:
        address: local path or s3:// address.
        min_score: annotations that say a lower `score` are dropped, and counted.

    Raises:
        InputError: no such file, no JSON, not COCO's shape, or an image id that stands for several.
    """
    given = parse_coco(read_bytes(address), f"boxes file {address}")
    names = {
        id_: clean_text(kind.name, max_chars=MAX_LABEL_CHARS)
        for id_, kind in given.categories.items()
        if kind.name is not None
    }
    return GivenBoxes(address, given, tuple(_image(image, names, min_score) for image in given.images))


def scaled(given: GivenImage, *, width: int, height: int) -> tuple[Given, ...]:
    """The objects in px of a picture of this size.

    Raises:
        DecodeError: the file's picture has another shape, so its boxes are of something else.
    """
    if given.width is None or given.height is None:
        return given.objects
    scale = np.array([width / given.width, height / given.height])
    if abs(scale[0] / scale[1] - 1) > _SIZE_TOLERANCE:
        raise DecodeError(
            "boxes_of_another_size",
            f"the boxes of {given.file_name} are for {given.width}x{given.height} px, the picture has "
            f"{width}x{height}",
        )
    return tuple(
        Given(
            id=one.id,
            label=one.label,
            box_xyxy=None if one.box_xyxy is None else one.box_xyxy * np.tile(scale, 2),
            points_K2=None if one.points_K2 is None else one.points_K2 * scale,
            labels_K=one.labels_K,
            score=one.score,
        )
        for one in given.objects
    )


def _image(image: ForeignImage, names: Mapping[Id, str], min_score: float) -> GivenImage:
    """An image's objects; what can't be one is dropped under its reason."""
    objects: list[Given] = []
    dropped = Counter[str]()
    for annotation in image.annotations:
        try:
            if annotation.crowd:
                raise BadAnnotation("crowd", "it outlines many objects as one")
            score = annotation.words.get("score")
            if score is not None and score_of(annotation.words, "score") < min_score:
                raise BadAnnotation("low_score", f"its score is under {min_score}")
            objects.append(_given(annotation, image, names))
        except BadAnnotation as exc:
            dropped[exc.reason] += 1
    return GivenImage(image.named.file_name, image.width, image.height, tuple(objects), dict(dropped))


def _given(annotation: ForeignAnnotation, image: ForeignImage, names: Mapping[Id, str]) -> Given:
    words, category = annotation.words, annotation.category
    box, points = words.get("bbox"), words.get("point_coords")
    if box is None and points is None:
        raise BadAnnotation("no_shape", "it has neither bbox nor point_coords")
    if category not in names and (category is not None or words.get("category_id") is not None):
        raise BadAnnotation("no_category", "its category has no name in the file")

    found_K2 = labels_K = box_xyxy = None
    if points is not None:
        found_K2 = points_K2(points)
        labels_K = _labels(words.get("point_labels"), len(found_K2))
    if box is not None:
        x, y, width, height = box_xywh(box, image.height, image.width)
        box_xyxy = np.array([x, y, x + width, y + height])

    return Given(
        id=annotation.id if isinstance(annotation.id, int) else None,
        label=None if category is None else names[category],
        box_xyxy=box_xyxy,
        points_K2=found_K2,
        labels_K=labels_K,
        score=None if words.get("score") is None else score_of(words, "score"),
    )


def _labels(found: object, count: int) -> npt.NDArray[np.int64]:
    """int64[K] of 0 and 1; all inside where the file doesn't say."""
    if found is None:
        return np.ones(count, np.int64)
    if not isinstance(found, list) or len(found) != count or any(one not in (0, 1) for one in found):
        raise BadAnnotation("bad_points", f"its point_labels are not {count} times 0 or 1")
    return np.array(found, np.int64)
