"""What an export takes of a generation: the images, their masks and classes, and the split of each.

    only          a set of pictures that was saved in the page
    where         SQL on the generation's tables: which images. Rows of `images`; other tables in subqueries
    masks_where   SQL on a mask's numbers and words (`MASK_ROW`): which masks, whoever brought them
    classes, class_map, min_label_score    see classes.py
    limit         the first so many of these images
    split         see splits.py

How it works: `where` is asked once and gives keys; the shards that hold none are not read. Masks are judged
image by image as they are joined, so people's, imported and label boxes' masks are judged by the same rules.
An image whose masks all go stays, without masks.

What it does not know: how a format writes what is left.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.picture_sets import load_set, shards_of
from maskmill.storage.query.query import run_query
from maskmill.storage.query.row_condition import RowCondition
from maskmill.workers.exports.chosen import splits
from maskmill.workers.exports.chosen.classes import CLASS, Classes
from maskmill.workers.exports.samples import ExportImage, ReviewedCount, count_reviewed, export_images
from maskmill.workers.reading.word_rows import rows_for
from maskmill.workers.reading.words import BROUGHT_BY, category_of
from maskmill.workers.reviews.rows import is_hand_made

if TYPE_CHECKING:
    import pyarrow as pa

    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportChoices

NOT_WHERE = "masks_where"
"""Why a mask is left out that a condition doesn't hold for."""

MAX_IMAGES = 2**40


class Selection:
    """A generation's images as an export takes them.

    Args:
        store: the dataset.
        generation: of it.
        choices: what was asked for.

    Attributes:
        shares: of the splits, by name; none where nothing is split.
        left_out: reason -> masks left out, of the images given so far.

    Raises:
        maskmill.storage.query.query.QueryError: a condition that cannot be asked.
        maskmill.storage.errors.NoSuchThing: there is no such set of pictures.
        ValueError: a split that is none.
    """

    def __init__(self, store: ObjectStore, generation: Generation, choices: ExportChoices) -> None:
        self._store, self._generation, self._choices = store, generation, choices
        self.shares = splits.parse(choices.split)
        self.left_out: Counter[str] = Counter()
        self._classes = Classes(tuple(choices.classes), dict(choices.class_map), choices.min_label_score)
        self._condition = (
            RowCondition(choices.masks_where, mask_row_schema(), "masks_where")
            if choices.masks_where
            else None
        )
        self._reviewed_images = self._reviewed_masks = 0
        self._keys: frozenset[str] | None = None
        self._shards: frozenset[int] | None = None
        if choices.where:
            self._keys, self._shards = self._asked()
        self._set = load_set(store, choices.only) if choices.only else None
        if self._set is not None:
            keys = frozenset(self._set.keys)
            self._keys = keys if self._keys is None else self._keys & keys
            self._shards = shards_of(store, self._keys)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits, in the order they are written; one without a name where nothing is split."""
        return tuple(self.shares) or ("",)

    def images(self, *, skip: int = 0, pictures: bool = True, split: str = "") -> Iterator[ExportImage]:
        """The images, in key order.

        Args:
            skip: leave out this many from the start.
            pictures: False leaves the photographs unread.
            split: only those of this split; "" gives all.

        Raises:
            maskmill.storage.errors.DatasetError: the generation has no masks.
            maskmill.storage.errors.DamagedObject: what is read is not what was written.
        """
        plain = not self._is_partial
        found = export_images(
            self._store,
            self._generation,
            skip=skip if plain else 0,
            pictures=pictures,
            column=self._choices.column,
            people=self._choices.people,
            shards=self._shards,
        )
        taken = 0
        for image in found:
            if self._keys is not None and image.sample.key not in self._keys:
                continue
            if self._choices.limit is not None and taken >= self._choices.limit:
                return
            taken += 1
            own = splits.split_of(image.sample.key, self.shares)
            if split and own != split:
                continue
            chosen = self._chosen(dataclasses.replace(image, split=own))  # counts what is left out
            self._count_review(chosen)
            if not plain and skip:
                skip -= 1
            else:
                yield chosen

    def reviewed(self) -> ReviewedCount:
        """Of the images given so far, skipped ones too: those with people's masks, and how many of these."""
        if not self._is_partial:
            return count_reviewed(self._store, self._generation, self._choices)
        return ReviewedCount(self._reviewed_images, self._reviewed_masks)

    def _count_review(self, image: ExportImage) -> None:
        if "review" in image.record:
            self._reviewed_images += 1
            self._reviewed_masks += sum(is_hand_made(row) for row in image.record["annotations"])

    @property
    def _is_partial(self) -> bool:
        """Whether anything but the whole generation is taken, image by image."""
        asked = self._keys is not None or self._choices.limit is not None or bool(self.shares)
        return asked or self._classes.decides or self._condition is not None

    def _asked(self) -> tuple[frozenset[str], frozenset[int]]:
        """The keys of the images that `where` holds for, and their shards."""
        result = run_query(
            self._store,
            self._generation,
            f"select key, shard from images where ({self._choices.where}\n)",
            max_rows=MAX_IMAGES,
            timeout_s=None,
            rows_for=rows_for,
        )
        return frozenset(key for key, _ in result.rows), frozenset(shard for _, shard in result.rows)

    def _chosen(self, image: ExportImage) -> ExportImage:
        """With the masks that stay, in their classes."""
        if not self._classes.decides and self._condition is None:
            return image
        rows = list(image.record["annotations"])
        places = list(range(len(rows)))
        if self._condition is not None:
            holds = self._condition.holds([_mask_row(image, row) for row in rows])
            places = [place for place, kept in zip(places, holds, strict=True) if kept]
            self.left_out[NOT_WHERE] += len(rows) - len(places)

        kept = []
        for place in places:
            row, reasons = self._classes.put([rows[place]]) if self._classes.decides else ([rows[place]], [])
            self.left_out.update(reasons)
            kept += [(place, one) for one in row]
        originals = image.original_annotations
        return dataclasses.replace(
            image,
            record={**image.record, "annotations": with_parents([row for _, row in kept], rows)},
            original_annotations=tuple(originals[place] for place, _ in kept) if originals else originals,
        )

    def options(self) -> dict[str, str | int | float]:
        """What makes this selection another than the whole generation, for an export's plan."""
        told: dict[str, str | int | float] = {}
        for name in ("where", "masks_where", "split", "min_label_score"):
            if getattr(self._choices, name):
                told[name] = getattr(self._choices, name)
        if self._set is not None:
            told["only"] = f"{self._set.name} {self._set.number}"
        if self._choices.limit is not None:
            told["limit"] = self._choices.limit
        if self._choices.classes:
            told["classes"] = json.dumps(list(self._choices.classes))
        if self._choices.class_map:
            told["class_map"] = json.dumps(dict(self._choices.class_map), sort_keys=True)
        return told


def with_parents(
    kept: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Masks whose parent was left out get its parent, and so on: a `parent` names a mask that is there."""
    parents = {row["id"]: row.get("parent") for row in rows}
    there = {row["id"] for row in kept}

    def nearest(parent: int | None) -> int | None:
        """The first that is there, going up; None where none is."""
        while parent is not None and parent not in there:
            parent = parents.get(parent)
        return parent

    return [{**row, "parent": nearest(row["parent"])} if "parent" in row else dict(row) for row in kept]


def mask_row_schema() -> pa.Schema:
    """What `masks_where` can ask of a mask."""
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    return pa.schema(
        [
            ("key", text),
            ("image_id", whole),
            ("annotation_id", whole),
            ("width", whole),
            ("height", whole),
            ("area_px", whole),
            ("bbox_x", number),
            ("bbox_y", number),
            ("bbox_w", number),
            ("bbox_h", number),
            ("predicted_iou", number),
            ("stability_score", number),
            ("expected_iou", number),
            ("p_right", number),
            ("label", text),
            ("label_score", number),
            ("brought_by", text),
            ("made_by", text),
        ]
    )


def _mask_row(image: ExportImage, row: Mapping[str, Any]) -> dict[str, Any]:
    info, box = image.record["image"], row.get("bbox") or (None,) * 4
    best: Mapping[str, Any] = (row.get("labels") or ({},))[0]
    return {
        "key": image.sample.key,
        "image_id": info["image_id"],
        "annotation_id": row["id"],
        "width": info["width"],
        "height": info["height"],
        "area_px": row["area"],
        **dict(zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), box, strict=True)),
        "predicted_iou": row.get("predicted_iou"),
        "stability_score": row.get("stability_score"),
        "expected_iou": row.get("expected_iou"),
        "p_right": row.get("p_right"),
        "label": category_of(row),
        "label_score": best.get("score"),
        "brought_by": row.get(BROUGHT_BY, "masks"),
        "made_by": row.get("made_by"),
    }


def class_of(row: Mapping[str, Any]) -> str | None:
    """The class of an exported mask: what was chosen for it, else what it is called; None without words."""
    if CLASS in row:
        found: str | None = row[CLASS]
        return found
    return category_of(row)
