"""Annotations that others made, as a column: each picture's, fitted to it as an SA-1B record.

How it works: every annotation becomes an SA-1B record's (run lengths, inclusive box, area), so that readers,
exports and comparisons treat it as masks; what the file said is kept beside it, word for word, under
`original`, so that a COCO file that is exported again is equal to the one that came in. Images that were
scaled when they were taken in get their masks scaled. An annotation that cannot be taken is left out and
counted in the record, the image's others stand; a picture that the file doesn't name is a reject.

A run of this is a run of any stage: a column version with a fingerprint (over the file's sha256 and what it
matched), shards, commit records; it resumes, and does nothing twice.

What it doesn't know: scores. `predicted_iou` and `stability_score` are 1 where the file has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE
from maskmill.pipeline.rle import Rle, area_px, box_xyxy
from maskmill.storage.dataset.records import NOT_ANNOTATED
from maskmill.storage.shards.shards import Sample
from maskmill.workers.foreign.annotations import (
    BadAnnotation,
    ForeignAnnotation,
    ForeignImage,
    ForeignSet,
    LeftOut,
    Tally,
    score_of,
)
from maskmill.workers.foreign.images.codec import DecodeError
from maskmill.workers.foreign.json_words import dump_json, printable
from maskmill.workers.foreign.matching import Matching
from maskmill.workers.foreign.shapes import fitted, points_K2, shape_of
from maskmill.workers.stages.base import EncodedSample, Picture, Stage, StageResult

REVISION = 2


class GivenMasks(Stage):
    """The stage: what was given for each picture, as an SA-1B record.

    Args:
        given: the file.
        matching: of its images with the dataset's.
        column, fingerprint: of the column version.
    """

    def __init__(self, given: ForeignSet, matching: Matching, *, column: str, fingerprint: str) -> None:
        self._given, self._matching = given, matching
        self.column = column
        self.fingerprint = fingerprint
        self.models: Mapping[str, str] = {column: f"{given.format} sha256:{given.sha256}"}

    def prepare(self) -> None:
        """See `Stage.prepare`: there is no model."""

    def decode(self, files: Mapping[str, bytes]) -> object:
        """See `Stage.decode`."""
        return json.loads(files["json"])

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`. A picture that the files don't know raises DecodeError: its reject."""
        return [self._run_one(picture) for picture in pictures]

    def _run_one(self, picture: Picture) -> StageResult:
        place = self._matching.entry_of.get(picture.key)
        if place is None:
            raise _no_entry(picture, self._matching)
        record = to_record(self._given.images[place], picture)
        return StageResult(partial(_encode, picture.key, record), output=record)


def to_record(image: ForeignImage, picture: Picture) -> dict[str, Any]:
    """The SA-1B record of a given image, fitted to the stored picture; see docs/formats.md, imported columns.

    Raises:
        DecodeError: the annotated image has another shape than the picture.
    """
    height, width = picture.pixels_HWC.shape[:2]
    given_width, given_height = image.width or width, image.height or height
    if abs(given_width * height - given_height * width) > max(given_width, given_height, width, height):
        raise DecodeError(
            "size_differs",
            f"{printable(image.named.file_name)}: annotated at {given_width} x {given_height}, "
            f"stored at {width} x {height} px",
        )

    first_id = picture.image_id * ANNOTATION_IDS_PER_IMAGE
    rows: list[dict[str, Any]] = []
    left_out, bad_rings = Tally(), 0
    for place, annotation in enumerate(image.annotations):
        try:
            if place >= ANNOTATION_IDS_PER_IMAGE:
                raise BadAnnotation("too_many", f"an image has ids for {ANNOTATION_IDS_PER_IMAGE}")
            row, rings = _row(annotation, (given_height, given_width), (height, width))
        except BadAnnotation as exc:
            left_out.add(exc.reason, annotation.name)
        else:
            rows.append({"id": first_id + place, **row})
            bad_rings += rings

    info = {"image_id": picture.image_id, "width": width, "height": height}
    entry = {**info, "file_name": f"{picture.key}.jpg", "original": dict(image.words)}
    return {"image": entry, "annotations": rows, **_account(left_out.left_out(), bad_rings)}


def left_out_of(record: Mapping[str, Any]) -> LeftOut:
    """The annotations of its image that a record was made without."""
    first = {reason: tuple(names) for reason, names in record.get("dropped_first", {}).items()}
    return LeftOut(record.get("dropped", {}), first)


def bad_rings_of(record: Mapping[str, Any]) -> int:
    """The rings of its image's polygons that a record was made without."""
    return int(record.get("dropped_rings", 0))


def _no_entry(picture: Picture, matching: Matching) -> DecodeError:
    could_be = matching.ambiguous.get(picture.key)
    if could_be is None:
        return DecodeError(NOT_ANNOTATED, f"{picture.source}: the given annotations do not name it")
    return DecodeError(
        "ambiguous", f"{picture.source}: {', '.join(could_be)} could be it or another; say the folders too"
    )


def _row(
    annotation: ForeignAnnotation, given_hw: tuple[int, int], stored_hw: tuple[int, int]
) -> tuple[dict[str, Any], int]:
    """An annotation of the record but for its id, and how many of its rings were bad."""
    words = annotation.words
    shape = shape_of(words, *given_hw)
    scores = score_of(words, "predicted_iou", "score"), score_of(words, "stability_score")

    # Fitted to the stored size
    rle = fitted(shape.rle, *stored_hw)
    area = shape.area_px if rle is shape.rle else _area(rle)
    x0, y0, x1, y1 = box_xyxy(rle)
    token = words.get("output_token")

    row = {
        "segmentation": rle.to_coco(),
        "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
        "area": area,
        "predicted_iou": scores[0],
        "stability_score": scores[1],
        "crop_box": [0.0, 0.0, float(stored_hw[1]), float(stored_hw[0])],
        "point_coords": _points(words),
        "output_token": token if type(token) is int else None,
        "parent": None,
        "original": dict(words),
    }
    return row, shape.bad_rings


def _area(rle: Rle) -> int:
    area = area_px(rle)
    if not area:
        raise BadAnnotation("empty_mask", "no pixel is left of it at the stored picture's size")
    return area


def _points(words: Mapping[str, Any]) -> list[list[float]]:
    """The prompt points, where the file has some that are points; they are no part of the mask."""
    if not words.get("point_coords"):
        return []
    try:
        return [[float(x), float(y)] for x, y in points_K2(words["point_coords"])]
    except BadAnnotation:
        return []


def _account(left_out: LeftOut, bad_rings: int) -> dict[str, Any]:
    """What a record says of annotations that it lacks; nothing where it has them all."""
    found: dict[str, Any] = {}
    if left_out.counts:
        found["dropped"] = dict(left_out.counts)
        found["dropped_first"] = {reason: list(names) for reason, names in left_out.first.items()}
    if bad_rings:
        found["dropped_rings"] = bad_rings
    return found


def _encode(key: str, record: Mapping[str, Any]) -> EncodedSample:
    return EncodedSample(Sample(key, {"json": dump_json(record)}), num_masks=len(record["annotations"]))
