"""Words joined to masks: the SA-1B record of an image with its captions, labels and names put in.

`image` gains `caption` (the best text), `captions` (each with score and origin) and `boxes` (labels without a
mask). An annotation gains `caption` (of its crop), `labels` (best first) and `names` (best first). Masks that
labels brought along follow the grid's, with ids of their own. Nothing of SA-1B's is renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskmill.storage.errors import DamagedObject
from maskmill.workers.run.columns import CAPTIONS, LABELS, NAMES

WORDS = (CAPTIONS, LABELS, NAMES)

Record = dict[str, Any]


def with_words(record: Mapping[str, Any], words: Mapping[str, Mapping[str, Any]]) -> Record:
    """The masks' record with the words of other columns' records.

    Args:
        record: SA-1B's, as the masks column stores it.
        words: records of the same image, by column; those that lack are left out.

    Raises:
        DamagedObject: a word record of another form, or one that names a mask that isn't there.
    """
    info, rows = dict(record["image"]), [dict(row) for row in record["annotations"]]
    column = ""
    try:
        if (labels := words.get(column := LABELS)) is not None:
            rows += [dict(row) for row in labels["annotations"]]
        by_id = {row["id"]: row for row in rows}
        if labels is not None:
            _put_labels(info, by_id, labels)
        if (captions := words.get(column := CAPTIONS)) is not None:
            _put_captions(info, by_id, captions)
        if (names := words.get(column := NAMES)) is not None:
            for row in names["names"]:
                by_id[row["id"]]["names"] = row["names"]
    except (KeyError, TypeError) as exc:
        raise DamagedObject(f"{column} of {info.get('file_name')}: do not fit its masks ({exc!r})") from exc
    return {**record, "image": info, "annotations": rows}


def _put_labels(info: Record, by_id: Mapping[int, Record], labels: Mapping[str, Any]) -> None:
    for row in by_id.values():
        row["labels"] = []
    boxes = []
    for label in labels["labels"]:  # best first
        told = {name: label[name] for name in ("label", "phrase", "score", "box")}
        if label["mask"] is None:
            boxes.append(told)
        else:
            by_id[label["mask"]]["labels"].append(told)
    if boxes:
        info["boxes"] = boxes


def _put_captions(info: Record, by_id: Mapping[int, Record], captions: Mapping[str, Any]) -> None:
    info["captions"] = captions["texts"]
    if captions["caption"] is not None:
        info["caption"] = captions["caption"]
    for crop in captions["crops"]:
        if crop["caption"] is not None:
            by_id[crop["mask"]]["caption"] = crop["caption"]


def category_of(annotation: Mapping[str, Any]) -> str | None:
    """What a mask of a joined record is called: what came with its box, else its best label, else its best
    name, else nothing."""
    if annotation.get("label"):
        return str(annotation["label"])
    for kind, word in (("labels", "label"), ("names", "name")):
        found = annotation.get(kind)
        if found:
            return str(found[0][word])
    return None
