"""The masks of a save: what became of each mask of its base, and what came new.

A row is SA-1B's, with more:

    {..., "made_by": "person" | "oracle" | "automatic", "how": "changed", "from": [400003], "clicks": 3,
     "seconds": 8.2, "drawn": false, "label": "dog"}

    how         from            means
    kept        one             as it was, and nobody said that it is right: who made it stays
    confirmed   one             as it was, and somebody looked at it alone and said that it is right
    changed     one             another outline of the same object
    added       none            new
    merged      two and more    one object that had been several
    split       one             a part of what had been one

`from` names ids of the base's masks. Everything of the base is in some row's `from`, or rejected: nothing
goes unsaid. But for `kept`, whoever saves has made the mask.

It doesn't know: where saves lie (storage/dataset/saves.py), or how a mask came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE
from maskmill.pipeline.checks import check_choice, check_int, check_range, check_type
from maskmill.pipeline.rle import Rle, area_px, box_xyxy, run_lengths
from maskmill.workers.reading.words import mask_fields

KEPT, CONFIRMED, CHANGED, ADDED, MERGED, SPLIT = "kept", "confirmed", "changed", "added", "merged", "split"
AUTOMATIC, PERSON, ORACLE = "automatic", "person", "oracle"
MAKERS = (PERSON, ORACLE)

SOURCES: Mapping[str, tuple[int, int]] = {
    KEPT: (1, 1),
    CONFIRMED: (1, 1),
    CHANGED: (1, 1),
    ADDED: (0, 0),
    MERGED: (2, ANNOTATION_IDS_PER_IMAGE),
    SPLIT: (1, 1),
}
"""What can become of a mask -> the fewest and most masks of the base that it is from."""

AS_IT_WAS = (KEPT, CONFIRMED)
MAX_LABEL = 1000


@dataclass(frozen=True, kw_only=True)
class MaskWork:
    """One mask that a person leaves.

    Args:
        how: one of `SOURCES`.
        sources: ids of the base's masks that it is from.
        segmentation: COCO run lengths, of the picture's size; None for what stays as it was.
        label: what it is called; None leaves what the base says, "" takes it away.
        clicks, seconds: of work on this mask, without idle time.
        drawn: finished by brush, eraser or polygon, not by the model's answer alone.
        points_xy: the clicks, in px of the picture.
        box_xywh: the box that asked for it, in px of the picture.
        facts: more that is known of it, as it is stored (an import's own words); no name of a row's.

    Raises:
        ValueError: an unknown `how`, another number of sources than it has, or a value out of its range.
    """

    how: str
    sources: tuple[int, ...] = ()
    segmentation: Mapping[str, Any] | None = None
    label: str | None = None
    clicks: int = 0
    seconds: float = 0.0
    drawn: bool = False
    points_xy: tuple[tuple[float, float], ...] = ()
    box_xywh: tuple[float, float, float, float] | None = None
    facts: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_choice("how", self.how, tuple(SOURCES))
        fewest, most = SOURCES[self.how]
        if not fewest <= len(set(self.sources)) == len(self.sources) <= most:
            wanted = str(fewest) if most == fewest else f"{fewest} or more"
            raise ValueError(
                f"a mask that is {self.how} comes from {wanted} masks; this one names {list(self.sources)}"
            )
        if (self.segmentation is None) != (self.how in AS_IT_WAS):
            wanted = "a" if self.segmentation is None else "no"
            raise ValueError(f"a mask that is {self.how} has {wanted} segmentation")
        if self.label is not None:
            check_type("label", self.label, str)
            check_int("length of label", len(self.label), 0, MAX_LABEL)
        check_type("drawn", self.drawn, bool)
        check_int("clicks", self.clicks, 0, 10**6)
        check_range("seconds", self.seconds, 0.0, 1e9)
        for value in (*(side for point in self.points_xy for side in point), *(self.box_xywh or ())):
            check_range("a point or box", value, -1e9, 1e9)


def rows_of(
    masks: Sequence[MaskWork],
    rejected: Sequence[int],
    *,
    base: Sequence[Mapping[str, Any]],
    image: Mapping[str, Any],
    made_by: str,
) -> tuple[dict[str, Any], ...]:
    """The rows of a save.

    Args:
        masks: all that there are now.
        rejected: ids of the base's masks that are no masks.
        base: rows of what it was begun from.
        image: image_id, width and height of the picture.
        made_by: one of `MAKERS`.

    Raises:
        ValueError: a mask that isn't the base's, one of the base that is neither in a row nor rejected or
            both, run lengths that are damaged, empty or of another size; says which.
    """
    known = {int(row["id"]): row for row in base}
    _check_account(masks, rejected, known)
    first_id = int(image["image_id"]) * ANNOTATION_IDS_PER_IMAGE
    check_int("masks of a picture", len(masks), 0, ANNOTATION_IDS_PER_IMAGE)

    rows = []
    for place, work in enumerate(masks):
        row = _as_it_was(work, known, made_by) if work.how in AS_IT_WAS else _new(work, known, image, made_by)
        row |= {
            "id": first_id + place,
            "parent": None,
            "how": work.how,
            "from": list(work.sources),
            "clicks": work.clicks,
            "seconds": work.seconds,
            "drawn": work.drawn,
        }
        rows.append(row)
    return tuple(rows)


def is_hand_made(row: Mapping[str, Any]) -> bool:
    """Whether a person, or an oracle in a person's place, drew a mask or confirmed it singly."""
    return row.get("made_by") in MAKERS


def _check_account(
    masks: Sequence[MaskWork], rejected: Sequence[int], known: Mapping[int, Mapping[str, Any]]
) -> None:
    """Everything of the base is said to be somewhere, once. Raises ValueError."""
    used = {source for work in masks for source in work.sources}
    strangers = sorted((used | set(rejected)) - known.keys())
    if strangers:
        raise ValueError(f"mask {strangers[0]} is none of those it was begun from")
    both = sorted(used & set(rejected))
    if both:
        raise ValueError(f"mask {both[0]} is both used and rejected")
    unsaid = sorted(known.keys() - used - set(rejected))
    if unsaid:
        raise ValueError(
            f"{len(unsaid)} of the masks it was begun from are neither kept nor rejected: "
            f"{', '.join(str(one) for one in unsaid[:3])}{', ...' if len(unsaid) > 3 else ''}"
        )
    uses = Counter(source for work in masks if work.how != SPLIT for source in work.sources)
    uses.update({source for work in masks if work.how == SPLIT for source in work.sources})
    twice = sorted(source for source, count in uses.items() if count > 1)
    if twice:
        raise ValueError(f"mask {twice[0]} is used twice; the parts of one are `split`")


def _as_it_was(work: MaskWork, known: Mapping[int, Mapping[str, Any]], made_by: str) -> dict[str, Any]:
    """The base's row; who confirmed it has made it, and what was known of it stays."""
    row = dict(known[work.sources[0]])
    if work.how == CONFIRMED:
        row["made_by"] = made_by
    else:
        row.setdefault("made_by", AUTOMATIC)
    return _labelled(row, work.label)


def _new(
    work: MaskWork, known: Mapping[int, Mapping[str, Any]], image: Mapping[str, Any], made_by: str
) -> dict[str, Any]:
    """A row for an outline that somebody made. Raises ValueError."""
    mask = _checked(work.segmentation or {}, image)
    left, top, right, bottom = (float(side) for side in box_xyxy(mask))
    row: dict[str, Any] = {
        **(work.facts or {}),
        "segmentation": mask.to_coco(),
        "bbox": [left, top, right - left, bottom - top],
        "area": area_px(mask),
        "predicted_iou": 1.0,
        "stability_score": 1.0,
        "crop_box": [0.0, 0.0, float(image["width"]), float(image["height"])],
        "point_coords": [list(point) for point in work.points_xy],
        "output_token": None,
        "made_by": made_by,
    }
    if work.box_xywh is not None:
        row["given_box"] = list(work.box_xywh)
    for name in ("label", *mask_fields()):
        told = [value for source in work.sources if (value := known[source].get(name))]
        if told and all(value == told[0] for value in told):
            row[name] = told[0]  # all that it came from agree
    return _labelled(row, work.label)


def _labelled(row: dict[str, Any], label: str | None) -> dict[str, Any]:
    if label == "":
        row.pop("label", None)
    elif label is not None:
        row["label"] = label
    return row


def _checked(segmentation: Mapping[str, Any], image: Mapping[str, Any]) -> Rle:
    """A mask of the picture's size with a pixel at least. Raises ValueError."""
    mask = Rle.from_coco(segmentation)
    size = int(image["height"]), int(image["width"])
    if (mask.height, mask.width) != size:
        raise ValueError(
            f"a mask of {mask.height} x {mask.width} pixels; the picture has {size[0]} x {size[1]}"
        )
    run_lengths(mask)
    if not area_px(mask):
        raise ValueError("a mask without a pixel: reject it instead")
    return mask


def fates(rows: Sequence[Mapping[str, Any]], rejected: Sequence[int]) -> Iterator[tuple[str, int]]:
    """How many masks of a save became what, those that occur: ("kept", 12), ("rejected", 3)."""
    for how in SOURCES:
        count = sum(row.get("how") == how for row in rows)
        if count:
            yield how, count
    if rejected:
        yield "rejected", len(rejected)
