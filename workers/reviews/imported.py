"""Masks that people made elsewhere and that were imported: a save of each picture, beside the column.

The column keeps the file's words, as any import does. The saves make its masks count as people's: for
training, audits, previews and exports. Crowds become pixels that count nowhere. A picture of which every
annotation could be taken is finished: who annotated it elsewhere is taken to have found everything.

It doesn't know: formats; the column's records are alike whatever they came from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from maskmill.pipeline.rle import Rle, decode, encode_mask
from maskmill.storage.dataset.join import join
from maskmill.workers.exports.given import is_crowd, words_of
from maskmill.workers.foreign.annotations import Id
from maskmill.workers.reviews.keep import Work
from maskmill.workers.reviews.rows import ADDED, MaskWork
from maskmill.workers.reviews.whole import IMPORT, take_whole
from maskmill.workers.stages.review import REVIEW

if TYPE_CHECKING:
    from maskmill.storage.dataset.columns import ColumnVersion
    from maskmill.storage.dataset.generations import Generation


def take_imported(
    version: ColumnVersion,
    before: Generation | None,
    names: Mapping[Id, str],
    *,
    who: str,
    created_utc: str,
) -> Counter[str]:
    """Saves every picture of an imported column.

    Args:
        version: the column.
        before: the latest generation; its review column has what was reviewed before there were saves.
        names: of the file's categories, by id.
        who: made the masks.
        created_utc: ISO 8601.

    Returns:
        Pictures by what became of them; see `whole.OUTCOMES`.

    Raises:
        DamagedObject: the column, or an earlier review, cannot be read.
        Recalled: a picture was forgotten meanwhile.
    """
    store, outcomes = version.store, Counter[str]()
    reviewed = _reviewed(before)
    for record in version.records():
        for sample in version.read(record):
            content = json.loads(sample.files["json"])
            image = {name: content["image"][name] for name in ("image_id", "width", "height", "file_name")}
            outcomes[
                take_whole(
                    store,
                    sample.key,
                    _work(content, names, who),
                    image=image,
                    generation=before.number if before is not None else None,
                    reviewed=reviewed.get(sample.key),
                    created_utc=created_utc,
                )
            ] += 1
    return outcomes


def _work(content: Mapping[str, Any], names: Mapping[Id, str], who: str) -> Work:
    """A record's masks as a person's work."""
    masks, crowds = list[MaskWork](), list[Rle]()
    for row in content["annotations"]:
        words = words_of(row["original"], names)
        if is_crowd(words):
            crowds.append(Rle.from_coco(row["segmentation"]))
            continue
        points = tuple((float(x), float(y)) for x, y in row["point_coords"])
        masks.append(
            MaskWork(
                how=ADDED,
                segmentation=row["segmentation"],
                label=words.get("label"),
                drawn=True,
                points_xy=points,
            )
        )
    return Work(
        who=who,
        tool=IMPORT,
        masks=masks,
        finished=not content.get("dropped"),
        ignore=_together(crowds),
    )


def _together(crowds: list[Rle]) -> dict[str, Any] | None:
    """All crowds as one area."""
    if not crowds:
        return None
    return encode_mask(np.logical_or.reduce([decode(one) for one in crowds])).to_coco()


def _reviewed(before: Generation | None) -> dict[str, dict[str, Any]]:
    """The reviews of a generation by key."""
    if before is None or REVIEW not in before.columns:
        return {}
    found = {
        sample.key: json.loads(sample.files[REVIEW]["json"])
        for sample in join(before.store, before, (REVIEW,))
    }
    return {key: record for key, record in found.items() if record is not None}
