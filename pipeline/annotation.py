"""What a mask stage gives for an image, and its SA-1B form.

The SA-1B record is the released dataset's: `{"image": {...}, "annotations": [...]}` with COCO run lengths, to
which `output_token` and `parent` are added and nothing is renamed. Boxes are the reference's: x, y, width and
height between inclusive corners, so width and height are one less than pycocotools' `toBbox`.

Imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from maskmill.pipeline.rle import Rle

ANNOTATION_IDS_PER_IMAGE = 100_000
"""Annotation ids are image_id times this plus the place in the image: unique over the dataset, below 2^53."""

SINGLE_OUTPUT = -1
"""`output_token` of a mask from the model's single-mask output, as boxes get."""

BoxXywh = tuple[float, float, float, float]
Number = TypeVar("Number", int, float)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Votes:
    """What the grid's other candidates said for a mask before suppression dropped them (masks/votes.py).

    Args:
        count: candidates whose box agrees with the mask's, itself among them.
        iou_sum: of their predicted IoUs.
        near: candidates whose box is near, those that agree among them.
        prompts: different prompts among those that agree.
        inside: candidates whose prompt lies in the mask's box.
        asked: prompts of the grid that lie there.
        own_outputs: mean box IoU with the other outputs of the mask's own prompt; 0 where none passed.
    """

    count: int
    iou_sum: float
    near: int
    prompts: int
    inside: int
    asked: int
    own_outputs: float


@dataclasses.dataclass(frozen=True)
class PassedOver:
    """Candidates of one box that no kept mask stands for: something may be there.

    Args:
        bbox_xywh: of the surest of them, as of an annotation.
        predicted_iou: its.
        count: how many agree on the box.
    """

    bbox_xywh: BoxXywh
    predicted_iou: float
    count: int


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One mask of an image.

    Args:
        segmentation: the mask as run lengths, of the image's size.
        bbox_xywh: left, top, width, height in px between inclusive corners (a single pixel has width 0).
        area_px: pixels of the mask.
        predicted_iou: the model's own estimate of its IoU with the object; not clipped, so it can pass 1.
        stability_score: IoU of the mask at two cut-offs of its logits, in [0, 1].
        crop_box_xywh: the crop that the mask was found in, in px of the image.
        point_xy: the prompt points, in px of the image.
        output_token: which of the model's three outputs gave it (0, 1, 2: the model's own order, roughly
            subpart to whole in SAM), or `SINGLE_OUTPUT`; None where unknown, as in files written by others.
        parent: place in the image's annotations of the smallest mask that contains it; None if none does.
        label: what the giver of its box or points called it; None from the grid.
        given_id: of the box or points in the file that gave them.
        given_box_xywh: the box as given, in px of the image, x, y, width, height as in COCO.
        votes: of the grid's other candidates; None where they are unknown. No part of comparisons.
    """

    segmentation: Rle
    bbox_xywh: BoxXywh
    area_px: int
    predicted_iou: float
    stability_score: float
    crop_box_xywh: BoxXywh
    point_xy: tuple[tuple[float, float], ...]
    output_token: int | None = None
    parent: int | None = None
    label: str | None = None
    given_id: int | None = None
    given_box_xywh: BoxXywh | None = None
    votes: Votes | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """All masks of an image.

    Args:
        width: of the image in px.
        height: of the image in px.
        annotations: the masks; their order is the stage's.
        seconds_by_step: time the stage spent on this image, by the name of its step; never part of the data
            and left out of comparisons.
        dropped: given boxes and points that gave no mask, by reason.
        passed_over: the grid's candidates that no mask stands for; None where they are unknown. No part of
            comparisons.

    Raises:
        ValueError: a parent that is no other annotation's place.
    """

    width: int
    height: int
    annotations: tuple[Annotation, ...]
    seconds_by_step: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        for index, annotation in enumerate(self.annotations):
            parent = annotation.parent
            if parent is not None and (parent == index or not 0 <= parent < len(self.annotations)):
                raise ValueError(f"annotation {index} has parent {parent}: use another annotation's place")


def to_xywh(box_xyxy: Sequence[Number]) -> tuple[Number, Number, Number, Number]:
    """A box by its near corner, width and height; the far corner's own kind (inclusive or not) stays in them.

    Args:
        box_xyxy: left, top, right, bottom.
    """
    left, top, right, bottom = box_xyxy
    return left, top, right - left, bottom - top


def to_xyxy(box_xywh: Sequence[Number]) -> tuple[Number, Number, Number, Number]:
    """The inverse of `to_xywh`."""
    x, y, width, height = box_xywh
    return x, y, x + width, y + height


def to_sa1b(image: AnnotatedImage, *, image_id: int, file_name: str) -> dict[str, Any]:
    """The SA-1B record of an image, ready for `json.dumps`.

    Args:
        image: the annotated image.
        image_id: unique over the dataset, from 0.
        file_name: of the image, as the record names it.

    Returns:
        `{"image": {...}, "annotations": [...]}`; an annotation's `parent` is its parent's id or None. What
        came with a given box (`label`, `given_id`, `given_box`) and `dropped` are there only where they are.

    Raises:
        ValueError: a negative image_id, or more masks than an image has ids for.
    """
    if image_id < 0:
        raise ValueError(f"image_id={image_id} is negative: ids start at 0")
    if len(image.annotations) > ANNOTATION_IDS_PER_IMAGE:
        raise ValueError(
            f"{file_name}: {len(image.annotations)} masks, at most {ANNOTATION_IDS_PER_IMAGE} fit"
        )

    first_id = image_id * ANNOTATION_IDS_PER_IMAGE
    return {
        "image": {
            "image_id": image_id,
            "width": image.width,
            "height": image.height,
            "file_name": file_name,
        },
        "annotations": [
            annotation_to_sa1b(annotation, first_id, index)
            for index, annotation in enumerate(image.annotations)
        ],
        **({"dropped": dict(image.dropped)} if image.dropped else {}),
        **({} if image.passed_over is None else {"passed_over": _boxes_passed_over(image.passed_over)}),
    }


def annotation_to_sa1b(annotation: Annotation, first_id: int, index: int) -> dict[str, Any]:
    """One annotation of an SA-1B record; its id is `first_id` plus its place."""
    given = {
        "label": annotation.label,
        "given_id": annotation.given_id,
        "given_box": None if annotation.given_box_xywh is None else list(annotation.given_box_xywh),
        "votes": None if annotation.votes is None else dataclasses.asdict(annotation.votes),
    }
    return {
        "id": first_id + index,
        "segmentation": annotation.segmentation.to_coco(),
        "bbox": list(annotation.bbox_xywh),
        "area": annotation.area_px,
        "predicted_iou": annotation.predicted_iou,
        "stability_score": annotation.stability_score,
        "crop_box": list(annotation.crop_box_xywh),
        "point_coords": [list(point) for point in annotation.point_xy],
        "output_token": annotation.output_token,
        "parent": None if annotation.parent is None else first_id + annotation.parent,
        **{name: value for name, value in given.items() if value is not None},
    }


def from_sa1b(record: Mapping[str, Any]) -> AnnotatedImage:
    """The annotated image of an SA-1B record, ours or the released dataset's.

    Args:
        record: as `to_sa1b` gives it; `output_token` and `parent` may lack.

    Raises:
        ValueError: a field that lacks or has another form, a mask of another size than the image, or a
            parent id that is not in the record.
    """
    try:
        info, rows = record["image"], record["annotations"]
        width, height = int(info["width"]), int(info["height"])
        place_of_id = {int(row["id"]): place for place, row in enumerate(rows)}
        annotations = tuple(annotation_from_sa1b(row, place_of_id) for row in rows)
        dropped = {str(reason): int(count) for reason, count in record.get("dropped", {}).items()}
        passed_over = _passed_over(record.get("passed_over"))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an SA-1B record: {error!r}") from error
    for place, annotation in enumerate(annotations):
        size = (annotation.segmentation.height, annotation.segmentation.width)
        if size != (height, width):
            raise ValueError(
                f"annotation {place} has size {size}, its image {(height, width)} (height, width)"
            )
    return AnnotatedImage(
        width=width, height=height, annotations=annotations, dropped=dropped, passed_over=passed_over
    )


def annotation_from_sa1b(row: Mapping[str, Any], place_of_id: Mapping[int, int]) -> Annotation:
    """The inverse of `annotation_to_sa1b`, by each id's place. Raises ValueError, KeyError, TypeError."""
    from maskmill.pipeline.rle import Rle  # here, so that reading settings and records' types stays light

    parent_id, output_token = row.get("parent"), row.get("output_token")
    if parent_id is not None and parent_id not in place_of_id:
        raise ValueError(f"annotation {row['id']} names parent {parent_id}, which is not in the record")
    return Annotation(
        segmentation=Rle.from_coco(row["segmentation"]),
        bbox_xywh=_box(row["bbox"]),
        area_px=int(row["area"]),
        predicted_iou=float(row["predicted_iou"]),
        stability_score=float(row["stability_score"]),
        crop_box_xywh=_box(row["crop_box"]),
        point_xy=tuple((float(x), float(y)) for x, y in row["point_coords"]),
        output_token=None if output_token is None else int(output_token),
        parent=None if parent_id is None else place_of_id[parent_id],
        label=None if row.get("label") is None else str(row["label"]),
        given_id=None if row.get("given_id") is None else int(row["given_id"]),
        given_box_xywh=None if row.get("given_box") is None else _box(row["given_box"]),
        votes=None if row.get("votes") is None else _votes(row["votes"]),
    )


def _votes(told: Mapping[str, Any]) -> Votes:
    counts = {name: int(told[name]) for name in ("count", "near", "prompts", "inside", "asked")}
    return Votes(iou_sum=float(told["iou_sum"]), own_outputs=float(told["own_outputs"]), **counts)


def _boxes_passed_over(found: Sequence[PassedOver]) -> list[dict[str, Any]]:
    return [
        {"bbox": list(one.bbox_xywh), "predicted_iou": one.predicted_iou, "count": one.count} for one in found
    ]


def _passed_over(told: Sequence[Mapping[str, Any]] | None) -> tuple[PassedOver, ...] | None:
    if told is None:
        return None
    return tuple(
        PassedOver(_box(one["bbox"]), float(one["predicted_iou"]), int(one["count"])) for one in told
    )


def _box(values: Sequence[float]) -> BoxXywh:
    x, y, width, height = values
    return float(x), float(y), float(width), float(height)
