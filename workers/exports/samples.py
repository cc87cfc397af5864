"""A generation's images as exports write them: SA-1B's names and record, whatever the dataset's own were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from maskmill.storage.plan.plan import load_plans
from maskmill.workers.exports.given import given_categories, words_of
from maskmill.workers.foreign.annotations import Id
from maskmill.workers.foreign.origin import origins_of
from maskmill.workers.reading.samples import AnnotatedSample, read_annotated
from maskmill.workers.reading.survey import mask_rows
from maskmill.workers.stages.review import REVIEW

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore


@dataclass(frozen=True)
class ExportImage:
    """An image on its way out.

    Attributes:
        stem: `sa_<image id>`: what its files are called, without ending.
        record: the SA-1B record with `file_name` of the export; the image's `key`, and `source` and
            `caption` where known, are added, and the words of other columns (workers/reading/words.py). The
            `caption` is the captions column's best, else what came with the image. Imported annotations have
            `label`, `category_id` and `iscrowd` as far as their file says them (given.py), and sources are
            told without the folders of the machine (foreign/origin.py).
        original, original_annotations: of imported masks: the words of the file they came from.
    """

    stem: str
    record: dict[str, Any]
    sample: AnnotatedSample
    original: Mapping[str, Any] | None = None
    original_annotations: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def jpeg(self) -> bytes:
        """The photograph, upright and of the record's size. Raises DamagedObject."""
        return self.sample.jpeg()

    @property
    def num_masks(self) -> int:
        """Masks in the record."""
        return len(self.record["annotations"])

    def record_json(self) -> bytes:
        """The record as compact JSON."""
        return json.dumps(self.record, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def export_images(
    store: ObjectStore,
    generation: Generation,
    *,
    skip: int = 0,
    pictures: bool = True,
    column: str = "masks",
) -> Iterator[ExportImage]:
    """The generation's annotated images, in key order.

    Args:
        store: the dataset.
        generation: what to read.
        skip: leave out this many from the start; whole shards of them are not read.
        pictures: False leaves the photographs unread; then neither source nor caption is known.
        column: that has the masks.

    Raises:
        maskmill.storage.errors.DatasetError: the generation has no masks.
        maskmill.storage.errors.DamagedObject: what is read is not what was written.
    """
    told, categories = origins_of(load_plans(store)), given_categories(generation, column)
    for row in mask_rows(store, generation, column):
        if skip >= row.num_written and column != REVIEW:  # which has images that nobody reviewed
            skip -= row.num_written
            continue
        samples = read_annotated(
            store, generation, shards=[row.shard], pictures=pictures, column=column, words=True
        )
        for sample in samples:
            if skip:
                skip -= 1
            else:
                yield _export_image(sample, categories, told)


def _export_image(
    sample: AnnotatedSample, categories: Mapping[Id, str], told: Callable[[str], str]
) -> ExportImage:
    info = dict(sample.record["image"])
    stem = f"sa_{info['image_id']}"
    info |= {"file_name": f"{stem}.jpg", "key": sample.key}
    original = info.pop("original", None)
    if sample.image is not None:
        info["source"] = told(sample.image.source)
        if sample.image.caption is not None:
            info.setdefault("caption", sample.image.caption)
    if original is None:
        return ExportImage(stem, {**sample.record, "image": info}, sample)
    rows = [dict(annotation) for annotation in sample.record["annotations"]]
    originals = tuple(row.pop("original") for row in rows)
    rows = [{**row, **words_of(words, categories)} for row, words in zip(rows, originals, strict=True)]
    return ExportImage(stem, {"image": info, "annotations": rows}, sample, original, originals)


def count_unannotated(generation: Generation, column: str = "masks") -> int:
    """Images whose shard has no masks in this generation yet."""
    annotated = {row.shard for row in generation.rows() if row.column == column}
    return sum(
        row.num_written for row in generation.rows() if row.column == "images" and row.shard not in annotated
    )


def column_option(column: str) -> dict[str, str]:
    """What an export's plan says of the column it read: nothing of the masks column."""
    return {} if column == "masks" else {"column": column}
