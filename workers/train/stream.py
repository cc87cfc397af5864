"""Labelled pictures of a generation for training: an endless, seeded, shuffled sequence with places to go on.

An epoch reads the shards in a seeded order, some at a time; the images of shards read together are shuffled.
Which images come, and in what order, depends on the generation, the seed and `shuffle_shards` alone, not on
how many workers there are: every worker reads every shard and decodes the images that are its own. (A shard's
bytes are cheap beside decoding and training; where they are not, use larger machines, not more.) A `Place` is
all that is needed to go on.

Labels come from the `review` column where it has the image, else from `masks`. An image without a mask that
can teach is passed over.

Where the settings ask for verdicts, an automatic mask brings what the `verdicts` column says of it. In a
record of `review` a mask that was kept is known by its outline: ids there are the save's own.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b
from maskmill.pipeline.rle import Rle, decode
from maskmill.pipeline.train.images import Labelled, teaching
from maskmill.storage.dataset.images import StoredImage, stored_image
from maskmill.storage.dataset.join import join
from maskmill.storage.errors import DamagedObject, DatasetError, InputError
from maskmill.storage.shards.shards import Sample
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.reading.samples import upright_jpeg
from maskmill.workers.reviews.rows import is_hand_made
from maskmill.workers.run.columns import IMAGES, MASKS
from maskmill.workers.stages.registry import standing_in
from maskmill.workers.stages.review import REVIEW as REVIEW
from maskmill.workers.stages.verdicts.record import VERDICTS

if TYPE_CHECKING:
    from maskmill.pipeline.settings.train import TrainSettings
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.join import JoinedSample
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.stores.base import ObjectStore

EXPECTED_IOU = "expected_iou"


@dataclass(frozen=True)
class Place:
    """Where a sequence stands: the next image's epoch, group of shards, and place in its shuffled order.

    Attributes:
        number: images given so far, over all epochs.
    """

    epoch: int = 0
    group: int = 0
    offset: int = 0
    number: int = 0


@dataclass(frozen=True, eq=False)
class RawImage:
    """An image as stored, its labels parsed; decoded only by the worker that trains on it.

    Attributes:
        verdicts: of the masks column's masks, by their outline; None where none are asked for.
    """

    key: str
    image: StoredImage
    record: dict[str, Any]
    settings: TrainSettings
    verdicts: Mapping[str, Mapping[str, float]] | None = None

    @property
    def reviewed(self) -> bool:
        """A person worked on it."""
        return REVIEW in self.record

    def labelled(self) -> Labelled:
        """Decodes picture and masks. Raises DamagedObject."""
        annotated = parsed(self.key, self.record)
        jpeg = upright_jpeg(self.image.jpeg, annotated.width, annotated.height, self.image.source)
        rows = self.record["annotations"]
        masks = [decode(one.segmentation) for one in annotated.annotations]
        facts = self.record.get(REVIEW, {})
        ignored = facts.get("ignore")
        return Labelled(
            self.key,
            decode_image(jpeg),
            np.stack(masks) if masks else np.zeros((0, annotated.height, annotated.width), np.bool_),
            self._told(rows, self.settings.automatic_quality),
            np.array([is_hand_made(row) for row in rows], np.bool_),
            bool(facts.get("complete", False)),
            decode(Rle.from_coco(ignored)) if ignored else None,
            self._told(rows, EXPECTED_IOU) if self.settings.iou_target == "expected" else None,
        )

    def _told(self, rows: Sequence[Mapping[str, Any]], what: str) -> NDArray[np.float32]:
        """float32[N] of what is told of each mask; by its scores where it has no verdict."""
        verdicts = self.verdicts if what != "scores" and self.verdicts is not None else {}
        found = []
        for row in rows:
            verdict = verdicts.get(_outline(row))
            scores = float(row["predicted_iou"]) * float(row["stability_score"])
            found.append(scores if verdict is None else float(verdict[what]))
        return np.array(found, np.float32)


class TrainStream:
    """The sequence. See this file's header.

    Args:
        store: the dataset.
        generation: of it.
        settings: of the training.

    Raises:
        DatasetError: the generation has no masks, neither automatic nor by people.
        InputError: verdicts are asked for, and not all its masks have them.
    """

    def __init__(self, store: ObjectStore, generation: Generation, settings: TrainSettings) -> None:
        self._store, self._generation, self._settings = store, generation, settings
        rows = generation.rows()
        self._columns = tuple(
            name for name in (IMAGES, MASKS, *standing_in()) if any(row.column == name for row in rows)
        )
        if settings.asks_verdicts:
            self._columns += (VERDICTS,)
            self._check_verdicts(rows)
        with_masks = (MASKS, *standing_in())
        self._shards = sorted({row.shard for row in rows if row.column in with_masks and row.num_written})
        if not self._shards:
            others = sorted({row.column for row in rows} - {IMAGES})
            raise DatasetError(
                f"{store.root}: generation {generation.number} has no masks to train on; annotate first"
                + (
                    f", or, where people made those of {others[0]}, import the same file `--by person`"
                    if others
                    else ""
                )
            )
        self.left_out: Counter[str] = Counter()

    def items(self, place: Place) -> Iterator[tuple[Place, RawImage]]:
        """Images from a place on, for ever; each with the place after it.

        Raises:
            DatasetError: a whole epoch held no image to train on.
        """
        while True:
            begun = place
            groups = self._groups(place.epoch)
            for group in range(place.group, len(groups)):
                order = self._shuffled(place.epoch, groups[group])
                for offset in range(place.offset, len(order)):
                    after = Place(place.epoch, group, offset + 1, place.number + 1)
                    yield after, order[offset]
                    place = after
                place = dataclasses.replace(place, group=group + 1, offset=0)
            if place.number == begun.number and (begun.group, begun.offset) == (0, 0):
                raise DatasetError(
                    f"{self._store.root}: no image of generation {self._generation.number} has a mask to "
                    f"train on (left out: {dict(self.left_out) or 'nothing'})"
                )
            place = Place(place.epoch + 1, 0, 0, place.number)

    def check_enough(self, least: int) -> None:
        """Reads on until `least` different images are found.

        Raises:
            InputError: there are fewer.
        """
        keys: set[str] = set()
        for shard in self._shards:
            for raw in self._images([shard]):
                keys.add(raw.key)
                if len(keys) >= least:
                    return
        raise InputError(
            f"{self._store.root}: generation {self._generation.number} has {len(keys)} images with masks to "
            f"train on, fewer than a batch of {least} (masks left out: {dict(self.left_out) or 'none'}); "
            "lower retrain.batch or annotate more"
        )

    def _check_verdicts(self, rows: Sequence[GenerationRow]) -> None:
        judged = {row.shard for row in rows if row.column == VERDICTS}
        lacking = sorted({row.shard for row in rows if row.column == MASKS} - judged)
        if lacking:
            raise InputError(
                f"{self._store.root}: generation {self._generation.number} has no verdicts of the masks of "
                f"{len(lacking)} shards (the first is {lacking[0]}), which retrain.automatic_quality and "
                "retrain.iou_target ask for: run maskmill relabel with --set verdicts.verifier=shipped"
            )

    def _groups(self, epoch: int) -> list[list[int]]:
        order = np.random.default_rng([self._settings.seed, epoch, 3]).permutation(self._shards).tolist()
        size = self._settings.shuffle_shards
        return [order[i : i + size] for i in range(0, len(order), size)]

    def _shuffled(self, epoch: int, shards: list[int]) -> list[RawImage]:
        some = [
            raw
            for raw in self._images(shards)
            for _ in range(self._settings.reviewed_repeat if raw.reviewed else 1)
        ]
        rng = np.random.default_rng([self._settings.seed, epoch, shards[0], 4])
        return [some[i] for i in rng.permutation(len(some))]

    def _images(self, shards: list[int]) -> Iterator[RawImage]:
        """Images with a mask that can teach, by the shards given and then by key."""
        for sample in join(self._store, self._generation, self._columns, shards=shards):
            record = _record(sample)
            if record is not None and self._teaches(record):
                image = stored_image(Sample(sample.key, sample.files[IMAGES]))
                verdicts = _verdicts(sample) if self._settings.asks_verdicts else None
                yield RawImage(sample.key, image, record, self._settings, verdicts)

    def _teaches(self, record: dict[str, Any]) -> bool:
        size_px = int(record["image"]["width"]) * int(record["image"]["height"])
        whys = [teaching(int(row["area"]), size_px, self._settings) for row in record["annotations"]]
        self.left_out.update(why for why in whys if why is not None)
        return any(why is None for why in whys)


def parsed(key: str, record: dict[str, Any]) -> AnnotatedImage:
    """A stored record, typed. Raises DamagedObject."""
    try:
        return from_sa1b(record)
    except ValueError as exc:
        raise DamagedObject(f"labels of {key}: {exc}") from exc


def _record(sample: JoinedSample) -> dict[str, Any] | None:
    """The record that stands in place of the masks' where there is one (`review`), else theirs."""
    try:
        record = None
        for column in (*standing_in(), MASKS):
            if record is None and column in sample.files:
                record = json.loads(sample.files[column]["json"])  # null: not reviewed
        if record is None:
            return None
        assert isinstance(record["annotations"], list) and "width" in record["image"]
    except (ValueError, KeyError, TypeError, AssertionError) as exc:
        raise DamagedObject(f"labels of {sample.key}: not an SA-1B record ({exc})") from exc
    assert isinstance(record, dict)
    return record


def _verdicts(sample: JoinedSample) -> dict[str, Mapping[str, float]]:
    """What is said of the masks column's masks, by outline; nothing where the image's were rejected."""
    if MASKS not in sample.files or VERDICTS not in sample.files:
        return {}
    try:
        rows = json.loads(sample.files[MASKS]["json"])["annotations"]
        said = {row["id"]: row for row in json.loads(sample.files[VERDICTS]["json"])[VERDICTS]}
        return {_outline(row): said[row["id"]] for row in rows if row["id"] in said}
    except (ValueError, KeyError, TypeError) as exc:
        raise DamagedObject(f"verdicts of {sample.key}: not as they are written ({exc})") from exc


def _outline(row: Mapping[str, Any]) -> str:
    return str(row["segmentation"]["counts"])
