"""Boxes and points that came with the images: a COCO detection file, matched to pictures by file name.

Read are COCO's `images` (`id`, `file_name`, and `width` and `height` to scale by), `annotations` and
`categories`: `bbox` ([x, y, w, h]), `category_id`, `score` (as detectors add it), `iscrowd`, and, for points,
`point_coords` ([[x, y], ...]) with `point_labels` (1 inside, 0 outside; all inside where they lack).
An annotation may have a box, points or both. A picture is matched by the longest `file_name` that its source
ends with, whole folders at a time, so `val/1.jpg` beats `1.jpg`. Boxes follow a picture that ingest shrank.

What it doesn't know: detections in other formats, keypoints, rotated boxes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.words.text import clean_text
from maskmill.storage.errors import InputError, ObjectNotFound
from maskmill.storage.stores.base import address_store, is_s3, local_address
from maskmill.workers.foreign.codec import DecodeError

MAX_LABEL_CHARS = 200

_SIZE_TOLERANCE = 0.02
"""Ingest rounds sides to pixels: both may shrink by slightly different factors."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Given:
    """What was given for one object.

    Args:
        id: of the annotation in the file; None where it has none.
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


class GivenBoxes:
    """A file's images by name."""

    def __init__(self, images: Sequence[GivenImage], address: str) -> None:
        self._by_base: dict[str, list[GivenImage]] = {}
        self._address = address
        for image in images:
            self._by_base.setdefault(PurePosixPath(image.file_name).name, []).append(image)

    def of(self, source: str) -> GivenImage | None:
        """The image whose name a picture's source ends with; None where the file has none.

        Args:
            source: a path or address, or tar::member.
        """
        path = PurePosixPath("/" + source.rpartition("::")[2])
        matches = [
            image
            for image in self._by_base.get(path.name, [])
            if path.parts[-len(PurePosixPath(image.file_name).parts) :]
            == PurePosixPath(image.file_name).parts
        ]
        return max(matches, key=lambda image: len(image.file_name), default=None)


def read_bytes(address: str) -> bytes:
    """A file of given boxes. Raises InputError where it is missing."""
    place = address if is_s3(address) else str(Path(local_address(address)).expanduser().absolute())
    store, name = address_store(place)
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
        InputError: no such file, no JSON, not COCO's shape, an annotation of no image, or two images of
            one name.
    """
    data = read_bytes(address)
    try:
        held = json.loads(data)
        return GivenBoxes(_images(held, min_score), address)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"boxes file {address} is no COCO detection file ({type(error).__name__}: {error}): it needs "
            "images (id, file_name), annotations (image_id, bbox or point_coords) and categories (id, name)"
        ) from error


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


def _images(held: Any, min_score: float) -> list[GivenImage]:
    categories = held.get("categories", [])
    names = {row["id"]: clean_text(str(row["name"]), max_chars=MAX_LABEL_CHARS) for row in categories}
    images = {row["id"]: row for row in held["images"]}
    if len({row["file_name"] for row in images.values()}) < len(images):
        raise ValueError("two images have one file_name, or one id")
    objects: dict[Any, list[Given]] = {image_id: [] for image_id in images}
    dropped: dict[Any, dict[str, int]] = {image_id: {} for image_id in images}
    for row in held["annotations"]:
        image_id = row["image_id"]
        if image_id not in images:
            raise ValueError(f"annotation {row.get('id')} is of image {image_id}, which is not in the file")
        reason = "crowd" if row.get("iscrowd") else "low_score" if row.get("score", 1.0) < min_score else None
        if reason is not None:
            dropped[image_id][reason] = dropped[image_id].get(reason, 0) + 1
            continue
        objects[image_id].append(_given(row, names))
    return [
        GivenImage(
            str(row["file_name"]),
            int(row["width"]) if row.get("width") else None,
            int(row["height"]) if row.get("height") else None,
            tuple(objects[image_id]),
            dropped[image_id],
        )
        for image_id, row in images.items()
    ]


def _given(row: Mapping[str, Any], names: Mapping[Any, str]) -> Given:
    box, points = row.get("bbox"), row.get("point_coords")
    if box is None and points is None:
        raise ValueError(f"annotation {row.get('id')} has neither bbox nor point_coords")
    if row.get("category_id") is not None and row["category_id"] not in names:
        raise ValueError(f"annotation {row.get('id')} is of category {row['category_id']}, which has no name")
    if points is not None:
        points = np.array(points, np.float64).reshape(-1, 2)
        labels = np.array(row.get("point_labels", np.ones(len(points))), np.int64)
        if len(labels) != len(points) or not len(points):
            raise ValueError(f"annotation {row.get('id')} has {len(points)} points and {len(labels)} labels")
    if box is not None:
        x, y, width, height = (float(value) for value in box)
        box = np.array([x, y, x + width, y + height])
    return Given(
        id=None if row.get("id") is None else int(row["id"]),
        label=names.get(row.get("category_id")),
        box_xyxy=box,
        points_K2=points,
        labels_K=None if points is None else labels,
        score=None if row.get("score") is None else float(row["score"]),
    )
