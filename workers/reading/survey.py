"""What a generation holds, looked at from outside: a spread sample of images, masks in columns, rejects.

Large datasets are looked at in part: a few shards, drawn from equal stretches of the dataset by a seed. Where
one image is wanted of a shard, it is among the shard's first, so that a picture never costs a whole tar.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b
from maskmill.storage.dataset.columns import making_order
from maskmill.storage.dataset.join import check_row, read_record, read_row
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.records import first_rejects
from maskmill.storage.errors import DamagedObject, NoSuchThing
from maskmill.storage.json_text import load_object
from maskmill.storage.shards.index import read_index
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.reading.samples import AnnotatedSample, mask_columns, read_annotated
from maskmill.workers.reading.words import category_of
from maskmill.workers.run.columns import IMAGES, MASKS
from maskmill.workers.stages.registry import column_names, standing_in
from maskmill.workers.stages.verdicts.record import VERDICTS, unexplained_of

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore

SHARDS_SURVEYED = 16
NEAR_START = 64
RECORD_THREADS = 16


@dataclass(frozen=True, eq=False)
class SampledImage:
    """An image with its masks, decoded; `source` is `tar::member` for a member of a tar.

    `words` says what each mask is called, "" where nothing does. `unexplained_RC` is float32[R, C], 0 to 1:
    where a verifier says that something lies without a mask; None where none was asked.
    """

    key: str
    source: str
    image_HW3: NDArray[np.uint8]
    annotated: AnnotatedImage
    caption: str | None = None
    words: tuple[str, ...] = ()
    unexplained_RC: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class MaskSurvey:
    """Masks in numbers: counts of all shards, columns of some.

    Attributes:
        num_images: with a masks record, in the whole generation.
        num_masks: in the whole generation.
        predicted_iou, stability, area_px: a value per mask of the shards read.
        masks_per_image: a value per image of the shards read, zeros included.
        num_shards_read: of `num_shards`.
    """

    num_images: int
    num_masks: int
    predicted_iou: NDArray[np.float64]
    stability: NDArray[np.float64]
    area_px: NDArray[np.int64]
    masks_per_image: NDArray[np.int64]
    num_shards_read: int
    num_shards: int


def spread(num_items: int, num_wanted: int, seed: int) -> list[int]:
    """Distinct places among `num_items`, rising: one drawn from each of `num_wanted` equal stretches."""
    num_wanted = min(num_items, num_wanted)
    draw = random.Random(seed)
    edges = [num_items * i // num_wanted for i in range(num_wanted + 1)] if num_wanted else [0]
    return [draw.randrange(low, high) for low, high in pairwise(edges)]


def mask_rows(
    store: ObjectStore, generation: Generation, column: str = "masks", *, people: bool = False
) -> tuple[GenerationRow, ...]:
    """The generation's rows of the masks column, or another that has masks, by shard.

    Args:
        store: the dataset.
        generation: of it.
        column: that has the masks.
        people: where people's masks are preferred, a shard that has them alone has its review's row.

    Raises:
        maskmill.storage.errors.NoSuchThing: there are none, or the column holds no masks.
    """
    if column in column_names() and column not in (MASKS, *standing_in()):
        raise NoSuchThing(f"{store.root}: column {column} holds no masks; name masks, review or an import's")
    by_shard: dict[int, GenerationRow] = {}
    for name in mask_columns(generation, column, people=people):
        by_shard |= {row.shard: row for row in generation.rows() if row.column == name}
    rows = tuple(by_shard[shard] for shard in sorted(by_shard))
    if not rows:
        cure = "run `generate` first" if column == "masks" else "`maskmill import` makes such a column"
        shown = column if column.isidentifier() else repr(column)
        raise NoSuchThing(f"{store.root}: generation {generation.number} has no {shown}; {cure}")
    return rows


def annotated_counts(
    store: ObjectStore, generation: Generation, column: str = MASKS, *, people: bool = False
) -> dict[int, int]:
    """How many images `read_annotated` gives of each shard that has any of the columns, by shard.

    Args:
        store: the dataset.
        generation: of it.
        column: that has the masks.
        people: where people's masks are preferred, as `mask_rows` has it.

    Raises:
        maskmill.storage.errors.NoSuchThing: there are none, or the column holds no masks.
        maskmill.storage.errors.DamagedObject: a shard with reviews is not what was written.
    """
    rows = mask_rows(store, generation, column, people=people)
    there = {(row.shard, row.column): row.num_written for row in generation.rows()}

    def count(row: GenerationRow) -> int:
        """Reviews hold null for pictures that nobody reviewed: where they have a say, records are read."""
        reviews = set(mask_columns(generation, column, people=people)) & set(standing_in())
        is_asked = any((row.shard, name) in there for name in reviews)
        if not is_asked or (row.column == MASKS and row.num_written == there.get((row.shard, IMAGES))):
            return row.num_written
        found = read_annotated(
            store, generation, shards=[row.shard], pictures=False, column=column, people=people
        )
        return sum(1 for _ in found)

    return {row.shard: count(row) for row in rows}


def sample_images(
    store: ObjectStore, generation: Generation, num_images: int, *, seed: int = 0, column: str = MASKS
) -> list[SampledImage]:
    """Images spread over a generation, in key order.

    Args:
        store: the dataset.
        generation: what to draw from.
        num_images: how many; fewer come back if there are fewer.
        seed: draws which.
        column: that has the masks; of the automatic ones, people's stand in where they are.

    Raises:
        maskmill.storage.errors.NoSuchThing: the generation has no such column.
        maskmill.storage.errors.DamagedObject: what is read is not what was written.
    """
    by_shard = annotated_counts(store, generation, column, people=True)
    shards, counts = list(by_shard), list(by_shard.values())
    ends = np.cumsum(counts)
    places_of: dict[int, list[int]] = {}
    for place in spread(int(ends[-1]), num_images, seed):
        i = int(np.searchsorted(ends, place, side="right"))
        places_of.setdefault(i, []).append(place - int(ends[i] - counts[i]))
    sampled: list[SampledImage] = []
    for i, places in places_of.items():
        near = places if len(places) > 1 else [places[0] % NEAR_START]
        sampled.extend(_take(store, generation, shards[i], near, column))
    return sampled


def _take(
    store: ObjectStore, generation: Generation, shard: int, places: Sequence[int], column: str
) -> Iterator[SampledImage]:
    """The samples at these places of a shard, read no further than the last; so it is checked before."""
    rows = [row for row in generation.rows() if row.shard == shard]
    for row in rows:
        check_row(store, row)
    maps = {key: one for row in rows if row.column == VERDICTS for key, one in _unexplained(store, row)}
    found = read_annotated(store, generation, shards=[shard], column=column, people=True, words=True)
    with closing(found) as samples:
        for place, sample in enumerate(islice(samples, max(places) + 1)):
            if place in places:
                yield replace(_decode(sample), unexplained_RC=maps.get(sample.key))


def _unexplained(store: ObjectStore, row: GenerationRow) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The maps of a shard's verdicts, by key."""
    for sample in read_row(store, row):
        record = load_object(sample.files["json"])
        if record.get("unexplained") is not None:
            try:
                yield sample.key, unexplained_of(record)
            except (ValueError, KeyError, TypeError) as exc:
                raise DamagedObject(f"{store.root}/{row.data.name}: {sample.key}: {exc!r}") from exc


def _decode(sample: AnnotatedSample) -> SampledImage:
    assert sample.image is not None
    try:
        annotated = from_sa1b(sample.record)
    except ValueError as exc:
        raise DamagedObject(f"masks of {sample.key}: {exc}") from exc
    return SampledImage(
        key=sample.key,
        source=sample.image.source,
        image_HW3=decode_image(sample.jpeg()),
        annotated=annotated,
        caption=sample.record["image"].get("caption", sample.image.caption),
        words=tuple(category_of(row) or "" for row in sample.record["annotations"]),
    )


def survey_masks(
    store: ObjectStore,
    generation: Generation,
    *,
    max_shards: int = SHARDS_SURVEYED,
    seed: int = 0,
    column: str = MASKS,
) -> MaskSurvey:
    """Counts all masks and reads the index of at most `max_shards` shards; records where there is no index.

    Args:
        store: the dataset.
        generation: of it.
        max_shards: whose values are read.
        seed: draws which.
        column: that has the masks.

    Raises:
        maskmill.storage.errors.NoSuchThing: the generation has no such column.
        maskmill.storage.errors.DamagedObject: an index, or a record, is not what was written.
    """
    rows = mask_rows(store, generation, column)
    if all(row.index is None for row in rows):
        return _survey_records(store, generation, rows, column)
    indexed = [row for row in rows if row.index is not None]
    read = [indexed[i] for i in spread(len(indexed), max_shards, seed)]
    tables = [read_index(store, row.index) for row in read if row.index is not None]
    per_image = [
        _per_image(table["key"].to_pylist(), row.num_written) for table, row in zip(tables, read, strict=True)
    ]
    return MaskSurvey(
        num_images=sum(row.num_written for row in rows),
        num_masks=sum(row.index.num_samples for row in indexed if row.index is not None),
        predicted_iou=_joined([table["predicted_iou"].to_numpy() for table in tables]).astype(np.float64),
        stability=_joined([table["stability_score"].to_numpy() for table in tables]).astype(np.float64),
        area_px=_joined([table["area_px"].to_numpy() for table in tables]).astype(np.int64),
        masks_per_image=_joined(per_image).astype(np.int64),
        num_shards_read=len(read),
        num_shards=len(rows),
    )


def _survey_records(
    store: ObjectStore, generation: Generation, rows: Sequence[GenerationRow], column: str
) -> MaskSurvey:
    """The same of a column without an index: all its records are read."""
    masks: list[tuple[float, float, int]] = []
    per_image: list[int] = []
    for sample in read_annotated(store, generation, pictures=False, column=column):
        found = sample.record["annotations"]
        per_image.append(len(found))
        masks += [(row["predicted_iou"], row["stability_score"], row["area"]) for row in found]
    values_N3 = np.array(masks, np.float64).reshape(-1, 3)
    return MaskSurvey(
        num_images=len(per_image),
        num_masks=len(masks),
        predicted_iou=values_N3[:, 0],
        stability=values_N3[:, 1],
        area_px=values_N3[:, 2].astype(np.int64),
        masks_per_image=np.array(per_image, np.int64),
        num_shards_read=len(rows),
        num_shards=len(rows),
    )


def shown_column(generation: Generation, column: str | None) -> str:
    """The column to show: as asked for, else the automatic masks, else people's, else the first import.

    Args:
        generation: to be shown.
        column: None leaves the choice.
    """
    if column is not None:
        return column
    own = set(column_names())
    imported = sorted({row.column for row in generation.rows()} - own)
    there = [name for name in (MASKS, *standing_in(), *imported) if name in generation.columns]
    return there[0] if there else MASKS


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _per_image(keys: Sequence[str], num_images: int) -> NDArray[np.int64]:
    """Masks of each image; an image without masks has no row in the index."""
    counts = list(Counter(keys).values())
    return np.array(counts + [0] * (num_images - len(counts)), dtype=np.int64)


def count_rejects(store: ObjectStore, generation: Generation) -> dict[str, int]:
    """The generation's rejected images by reason; reads the records that have any.

    An image that several columns reject counts once, for the first of them as they are made.

    Raises:
        maskmill.storage.errors.DamagedObject: a record is not the one that was published.
    """
    by_shard: dict[int, dict[str, GenerationRow]] = {}
    for row in generation.rows():
        if row.num_rejects:
            by_shard.setdefault(row.shard, {})[row.column] = row

    def reasons(rows: dict[str, GenerationRow]) -> list[str]:
        """Of a shard's rejected images."""
        records = [read_record(store, rows[column]) for column in making_order(rows)]
        return [reject.reason for reject in first_rejects(records).values()]

    counts = Counter[str]()
    with ThreadPoolExecutor(RECORD_THREADS) as threads:
        for found in threads.map(reasons, by_shard.values()):
            counts.update(found)
    return dict(sorted(counts.items()))
