"""A generation's images as exports write them: SA-1B's names and record, whatever the dataset's own were."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE
from maskmill.pipeline.rle import Rle, area_px, box_xyxy
from maskmill.storage.plan.plan import load_plans
from maskmill.workers.exports.given import given_categories, words_of
from maskmill.workers.foreign.annotations import Id
from maskmill.workers.foreign.origin import origins_of
from maskmill.workers.reading.samples import AnnotatedSample, mask_columns, read_annotated
from maskmill.workers.reading.survey import mask_rows
from maskmill.workers.reviews.rows import is_hand_made
from maskmill.workers.stages.registry import standing_in

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportChoices


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
        split: train, val or test; "" where nothing is split.
    """

    stem: str
    record: dict[str, Any]
    sample: AnnotatedSample
    original: Mapping[str, Any] | None = None
    original_annotations: tuple[Mapping[str, Any], ...] = ()
    split: str = ""

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
    shards: Container[int] | None = None,
    people: bool = False,
) -> Iterator[ExportImage]:
    """The generation's annotated images, in key order.

    Args:
        store: the dataset.
        generation: what to read.
        skip: leave out this many from the start; whole shards of them are not read.
        pictures: False leaves the photographs unread; then neither source nor caption is known.
        column: that has the masks.
        shards: only these; None reads all.
        people: prefer people's masks; see reading/samples.py.

    Raises:
        maskmill.storage.errors.DatasetError: the generation has no masks.
        maskmill.storage.errors.DamagedObject: what is read is not what was written.
    """
    told, categories = origins_of(load_plans(store)), given_categories(generation, column)
    whole = mask_columns(generation, column, people=people) == ("masks",)  # a row is an image there
    for row in mask_rows(store, generation, column, people=people):
        if shards is not None and row.shard not in shards:
            continue
        if whole and skip >= row.num_written:
            skip -= row.num_written
            continue
        samples = read_annotated(
            store,
            generation,
            shards=[row.shard],
            pictures=pictures,
            column=column,
            people=people,
            words=True,
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
    sample = _told_of_review(sample)
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


def _told_of_review(sample: AnnotatedSample) -> AnnotatedSample:
    """A reviewed picture without its people's names, and with what counts nowhere as a crowd of its own."""
    facts = sample.record.get("review")
    if not isinstance(facts, Mapping):
        return sample
    rows = list(sample.record["annotations"])
    if facts.get("ignore"):
        rows.append(_crowd(facts["ignore"], sample.record["image"], len(rows)))
    told = {name: facts[name] for name in ("by", "tool", "complete") if name in facts}
    return replace(sample, record={**sample.record, "annotations": rows, "review": told})


def _crowd(ignore: Mapping[str, Any], info: Mapping[str, Any], place: int) -> dict[str, Any]:
    mask = Rle.from_coco(ignore)
    left, top, right, bottom = (float(side) for side in box_xyxy(mask))
    return {
        "id": int(info["image_id"]) * ANNOTATION_IDS_PER_IMAGE + place,
        "segmentation": mask.to_coco(),
        "bbox": [left, top, right - left, bottom - top],
        "area": area_px(mask),
        "predicted_iou": 1.0,
        "stability_score": 1.0,
        "crop_box": [0.0, 0.0, float(info["width"]), float(info["height"])],
        "point_coords": [],
        "output_token": None,
        "parent": None,
        "iscrowd": 1,
    }


def count_unannotated(generation: Generation, choices: ExportChoices, reviewed: ReviewedCount) -> int:
    """Images without masks yet: of a review those without one, else those of shards that have no masks."""
    images = {row.shard: row.num_written for row in generation.rows() if row.column == "images"}
    if choices.column in standing_in():
        return sum(images.values()) - reviewed.images
    columns = mask_columns(generation, choices.column, people=choices.people)
    annotated = {row.shard for row in generation.rows() if row.column in columns}
    return sum(count for shard, count in images.items() if shard not in annotated)


def source_options(generation: Generation, choices: ExportChoices) -> dict[str, str]:
    """What an export's plan says of where its masks are from: nothing of the masks column alone."""
    kept = {"ids_of": choices.ids_of} if choices.ids_of else {}
    if choices.column != "masks":
        return {"column": choices.column, **kept}
    columns = mask_columns(generation, choices.column, people=choices.people)
    return {"prefer": choices.prefer, **kept} if len(columns) > 1 else kept


@dataclass(frozen=True)
class ReviewedCount:
    """Images of an export whose masks people left so, and masks that people drew or confirmed singly."""

    images: int
    masks: int


def count_reviewed(store: ObjectStore, generation: Generation, choices: ExportChoices) -> ReviewedCount:
    """How many images of an export have people's masks, and how many masks people made or confirmed.

    Args:
        store: the dataset.
        generation: that was exported.
        choices: of the export.

    Raises:
        maskmill.storage.errors.DamagedObject: a review is not what was written.
    """
    reviews = set(mask_columns(generation, choices.column, people=choices.people)) & set(standing_in())
    images = masks = 0
    for name in reviews & generation.columns.keys():
        for sample in read_annotated(store, generation, pictures=False, column=name):
            images += 1
            masks += sum(is_hand_made(row) for row in sample.record["annotations"])
    return ReviewedCount(images, masks)
