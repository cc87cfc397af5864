"""Words joined to masks: the SA-1B record of an image with its captions, labels and names put in.

`image` gains `caption` (the best text), `captions` (each with score and origin) and `boxes` (labels without a
mask). An annotation gains `caption` (of its crop), `labels` (best first) and `names` (best first). Masks that
labels brought along follow the grid's, with ids of their own and `brought_by`. Nothing of SA-1B's is renamed.

How a column joins stands in its own file (`Column.join`); here they are put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskmill.storage.errors import DamagedObject
from maskmill.workers.run.columns import Join, Record
from maskmill.workers.stages import registry
from maskmill.workers.stages.registry import joined_columns

BROUGHT_BY = "brought_by"
"""The field of an annotation that names the column which brought it; the masks column's own have none."""


def word_columns() -> tuple[str, ...]:
    """The columns that join masks, in the order they are joined."""
    return tuple(column.name for column in joined_columns())


def with_words(record: Mapping[str, Any], words: Mapping[str, Mapping[str, Any]]) -> Record:
    """The masks' record with the words of other columns' records.

    Args:
        record: SA-1B's, as the masks column stores it.
        words: records of the same image, by column; those that lack are left out.

    Raises:
        DamagedObject: a word record of another form, or one that names a mask that isn't there.
    """
    info, rows = dict(record["image"]), [dict(row) for row in record["annotations"]]
    by_id = {row["id"]: row for row in rows}
    for column in joined_columns():
        if column.join is None or column.name not in words:
            continue
        found = words[column.name]
        try:
            brought = column.join.brings(found) if column.join.brings is not None else ()
            rows += [{**row, BROUGHT_BY: column.name} for row in brought]
            by_id = {row["id"]: row for row in rows}
            column.join.put(info, by_id, found)
        except (KeyError, TypeError) as exc:
            raise DamagedObject(
                f"{column.name} of {info.get('file_name')}: do not fit its masks ({exc!r})"
            ) from exc
    return {**record, "image": info, "annotations": rows}


def with_same_words(record: Mapping[str, Any], joined: Mapping[str, Any]) -> Record:
    """A reviewed picture's record with the words that other columns have for its automatic masks.

    Words are for a mask of an outline: they go to the masks that a person left or confirmed as they were,
    whatever their ids are now. What a person calls a mask stays (`label`), and so does all that people said.

    Args:
        record: what people left of the picture.
        joined: the masks' record of the same picture, with words; see `with_words`.
    """
    fields = mask_fields()
    told = {
        _outline(row): {name: row[name] for name in fields if name in row} for row in joined["annotations"]
    }
    rows = [{**row, **told.get(_outline(row), {})} for row in record["annotations"]]
    return {**record, "image": {**joined["image"], **record["image"]}, "annotations": rows}


def _outline(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The same for two rows of the same pixels: both run lengths come from one encoder, compressed."""
    segmentation = row["segmentation"]
    counts = segmentation["counts"]
    return (*segmentation["size"], tuple(counts) if isinstance(counts, list) else counts)


def category_of(annotation: Mapping[str, Any]) -> str | None:
    """What a mask of a joined record is called: what came with its box, else the best word of the first
    column that has one for it (labels, then names), else nothing."""
    if annotation.get("label"):
        return str(annotation["label"])
    for column in joined_columns():
        if column.join is not None and column.join.word is not None:
            field, word = column.join.word
            if annotation.get(field):
                return str(annotation[field][0][word])
    return None


def image_fields() -> tuple[str, ...]:
    """What columns add to an image, for formats that list their fields."""
    return tuple(name for join in _joins() for name in join.image_fields)


def mask_fields() -> tuple[str, ...]:
    """What columns add to an annotation, for formats that list their fields."""
    return tuple(name for join in _joins() for name in join.mask_fields)


def _joins() -> list[Join]:
    """In the order the columns are made."""
    return [column.join for column in registry.COLUMNS if column.join is not None]
