"""Pictures that come in whole: an import by a person, masks that are given, what an oracle made.

Who reads a file doesn't know what people did meanwhile. So what comes in is a save of its own that takes the
place of an earlier one only where that came in whole too: a corrected file corrects. Where a person worked on
the picture in between it stands beside their save, and both are shown. The same file again changes nothing.

It doesn't know: files, or how an oracle works.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from maskmill.storage.dataset.saves import Base, Save, standing_of
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.reviews.keep import Start, Work, keep
from maskmill.workers.reviews.rows import CONFIRMED, ORACLE, MaskWork

GIVEN, IMPORT = "given", "import"
FILES = (GIVEN, IMPORT)
"""Tools that read files."""

NEW, CORRECTED, SAME, BESIDE = "new", "corrected", "same", "beside"
OUTCOMES = (NEW, CORRECTED, SAME, BESIDE)


def take_whole(
    store: ObjectStore,
    key: str,
    work: Work,
    *,
    image: Mapping[str, Any],
    generation: int | None,
    reviewed: Mapping[str, Any] | None = None,
    created_utc: str,
) -> str:
    """Keeps a picture's masks as they came in.

    Args:
        store: the dataset.
        key: of the picture.
        work: all its masks, each `added`.
        image: image_id, width, height and file_name.
        generation: that is the latest now; None where there is none.
        reviewed: its record of the review column, for a picture without saves.
        created_utc: ISO 8601.

    Returns:
        One of `OUTCOMES`: the picture's first review; another than before, which it takes the place of; what
        is there already; or kept beside the work of a person.

    Raises:
        InputError: the masks are none of this picture's.
        Recalled: the picture was forgotten.
    """
    save = standing_of(store, key).in_force
    reviewed = None if save is not None else reviewed
    if save is not None or reviewed is not None:
        there = save.annotations if save is not None else (reviewed or {})["annotations"]
        finished = save.finished if save is not None else bool((reviewed or {})["review"].get("complete"))
        if _content(there) == _content_of(work.masks) and finished == work.finished:
            return SAME

    base = Base(generation=generation)
    start = Start(key=key, image=image, rows=(), base=base)
    if reviewed is not None:
        start = replace(start, rows=tuple(reviewed["annotations"]), base=replace(base, column="review"))
    elif save is not None and came_whole(save):
        start = replace(start, rows=save.annotations, base=replace(base, saves=(save.number,)))

    work = replace(_against(work, start.rows), save_id=_id(work, start.base))
    kept = keep(store, start, work, created_utc=created_utc)
    if save is None and reviewed is None:
        return NEW
    return BESIDE if kept.is_beside else CORRECTED


def came_whole(save: Save) -> bool:
    """Whether a save came in whole, so that a later one of its kind may take its place."""
    return save.made_by == ORACLE or save.tool in FILES


def _against(work: Work, rows: Sequence[Mapping[str, Any]]) -> Work:
    """The work, as said of what it takes the place of: the same masks are confirmed, the rest rejected."""
    same: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        same[_face(row["segmentation"], row.get("label"))].append(int(row["id"]))
    masks = []
    for mask in work.masks:
        assert mask.segmentation is not None
        known = same[_face(mask.segmentation, mask.label)]
        if known:
            masks.append(
                MaskWork(how=CONFIRMED, sources=(known.pop(0),), clicks=mask.clicks, drawn=mask.drawn)
            )
        else:
            masks.append(mask)
    left = sorted(id_ for ids in same.values() for id_ in ids)
    return replace(work, masks=masks, rejected=left)


def _content(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return sorted(_face(row["segmentation"], row.get("label")) for row in rows)


def _content_of(masks: Iterable[MaskWork]) -> list[tuple[str, str]]:
    return sorted(_face(mask.segmentation or {}, mask.label) for mask in masks)


def _face(segmentation: Mapping[str, Any], label: str | None) -> tuple[str, str]:
    return str(segmentation.get("counts")), label or ""


def _id(work: Work, base: Base) -> str:
    """The same for the same masks in place of the same saves: a file that is read again is one save."""
    facts = [work.tool, work.made_by, work.finished, _content_of(work.masks), base.column, list(base.saves)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
