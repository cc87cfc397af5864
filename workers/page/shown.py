"""What the page shows of one picture: its JPEG, a thumbnail with its masks, and its record.

Each is read from the picture's own bytes of its shard's tars, and the last ones are kept.

Shape suffixes: H, W height and width of a picture; h, w of its thumbnail.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskmill.pipeline.pixels import nearest
from maskmill.pipeline.rle import Rle, run_lengths
from maskmill.storage.browse.members import Members, missing
from maskmill.storage.dataset.images import StoredImage, stored_image
from maskmill.storage.dataset.join import read_record
from maskmill.storage.errors import DamagedObject, DatasetError
from maskmill.storage.json_text import load_object
from maskmill.workers.pictures.render import mask_colours
from maskmill.workers.reading.samples import upright_jpeg
from maskmill.workers.reading.words import with_words, word_columns
from maskmill.workers.run.columns import IMAGES
from maskmill.workers.stages.review import REVIEW
from maskmill.workers.stages.verdicts.record import VERDICTS

if TYPE_CHECKING:
    from maskmill.storage.browse.catalogue import Catalogue
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.dataset.saves import Save

Record = dict[str, Any]

THUMB_QUALITY = 80
MOST_PAINTED = 200  # of a thumbnail's masks, the largest: smaller ones would be dots
OPACITY = 0.5


class Shown:
    """Pictures of a generation as a browser wants them. Safe to share between threads.

    Args:
        catalogue: the generation.
        newest: gives the save of a picture in force, None where there is none; its masks stand in place of
            the automatic ones.
    """

    def __init__(self, catalogue: Catalogue, newest: Callable[[str], Save | None]) -> None:
        self._catalogue, self._newest = catalogue, newest
        self._members = Members(catalogue.store)
        self.image = lru_cache(maxsize=24)(self._image)
        self.automatic = lru_cache(maxsize=64)(self._automatic)
        self._thumbs: Callable[[str, int, bool, int], bytes] = lru_cache(maxsize=1500)(self._thumb)

    @property
    def column(self) -> str:
        """That has the masks."""
        return self._catalogue.column

    def jpeg(self, key: str) -> bytes:
        """The picture as its masks see it: upright, of the record's size.

        Raises:
            StorageError: there is no such picture, or it cannot be read.
        """
        stored = self.image(key)
        size = self.size(key)
        return upright_jpeg(stored.jpeg, *size, stored.source)

    def size(self, key: str) -> tuple[int, int]:
        """Width and height in px. Raises StorageError."""
        record = self.automatic(key)
        if record is not None:
            return int(record["image"]["width"]), int(record["image"]["height"])
        stored = self.image(key)
        return stored.width, stored.height

    def thumbnail(self, key: str, side_px: int, *, masks: bool) -> bytes:
        """A JPEG that fits a square, its masks painted in on demand. Raises StorageError."""
        newest = self._newest(key) if masks else None
        return self._thumbs(key, side_px, masks, 0 if newest is None else newest.number)

    def record(self, key: str) -> Record:
        """Everything that the dataset holds of a picture, for the page.

        Returns:
            `image`, the `annotations` that stand now (`by` says whose: "automatic", or the column's), the
            `columns` with what made each, the `verdict` on the picture, and where the picture came from.

        Raises:
            StorageError: there is no such picture, or it cannot be read.
        """
        planned = self._catalogue.planned(key)
        width, height = self.size(key)
        automatic = self.automatic(key)
        newest = self._newest(key)
        words = automatic["image"] if automatic is not None else {}
        return {
            "key": key,
            "image": {
                "width": width,
                "height": height,
                "source": planned.label,
                "bytes": planned.size_bytes,
                "caption": words.get("caption") or planned.caption,
            },
            "by": "automatic" if newest is None else "people",
            "annotations": self.annotations(key),
            "columns": [self._column(row, key) for row in self._catalogue.rows_of(planned.shard)],
            "verdict": self.verdict(key),
        }

    def verdict(self, key: str) -> Record | None:
        """What a verifier says of the picture as a whole, with its map; None where none was asked.

        Raises:
            StorageError: there is no such picture, or its verdict cannot be read.
        """
        found = self._json(self._catalogue.planned(key).shard, VERDICTS, key)
        return found and {name: found.get(name) for name in ("share_found", "calibrated", "unexplained")}

    def annotations(self, key: str) -> Sequence[Mapping[str, Any]]:
        """The masks that stand now: people's where there are any, else the automatic ones."""
        newest = self._newest(key)
        if newest is not None:
            return newest.annotations
        record = self.reviewed(key) or self.automatic(key)
        return () if record is None else record["annotations"]

    def reviewed(self, key: str) -> Record | None:
        """The record of the review column, of reviews from before there were saves; None without."""
        return self._json(self._catalogue.planned(key).shard, REVIEW, key)

    def _image(self, key: str) -> StoredImage:
        return stored_image(self._sample(key, IMAGES))

    def _sample(self, key: str, column: str) -> Any:
        row = self._catalogue.row(self._catalogue.planned(key).shard, column)
        sample = self._members.sample(row, key) if row is not None else None
        if sample is None:
            raise missing(key, column)
        return sample

    def _automatic(self, key: str) -> Record | None:
        """The record of the masks' column, with the words of other columns; None where it has none."""
        shard = self._catalogue.planned(key).shard
        record = self._json(shard, self._catalogue.column, key)
        if record is None:
            return None
        words = {
            name: found for name in word_columns() if (found := self._json(shard, name, key)) is not None
        }
        return with_words(record, words) if words else record

    def _json(self, shard: int, column: str, key: str) -> Record | None:
        row = self._catalogue.row(shard, column)
        sample = self._members.sample(row, key) if row is not None else None
        if sample is None or sample.files.get("json", b"null") == b"null":
            return None
        try:
            return load_object(sample.files["json"])
        except ValueError as exc:
            raise DamagedObject(f"{column} of {key}: has no readable json ({exc})") from exc

    def _column(self, row: GenerationRow, key: str) -> Record:
        """What made a column of the picture, and why it has none."""
        record = read_record(self._catalogue.store, row)
        reject = next((reject for reject in record.rejects if reject.key == key), None)
        return {
            "column": row.column,
            "fingerprint": row.fingerprint,
            "made": record.created_utc,
            "models": dict(record.models),
            "rejected": None if reject is None else asdict(reject),
            "says": None if reject is not None else self._says(row, key),
        }

    def _says(self, row: GenerationRow, key: str) -> str | None:
        """A column's record as text; None for what the page shows anyway: pictures, masks, verdicts."""
        if row.column in (IMAGES, self._catalogue.column, VERDICTS):
            return None
        sample = self._members.sample(row, key)
        if sample is None or "json" not in sample.files:
            return None
        found = json.loads(sample.files["json"])
        if isinstance(found, dict) and isinstance(found.get("annotations"), list):
            return f"{len(found['annotations'])} masks"
        return json.dumps(found, ensure_ascii=False)[:4000]

    def _thumb(self, key: str, side_px: int, masks: bool, version: int) -> bytes:
        with Image.open(io.BytesIO(self.jpeg(key))) as image:
            image.draft("RGB", (side_px, side_px))
            small = image.convert("RGB")
        small.thumbnail((side_px, side_px), Image.Resampling.BILINEAR)
        annotations = self.annotations(key) if masks else ()
        if annotations:
            labels_hw = small_labels(annotations, small.height, small.width)
            small = Image.fromarray(_painted(np.asarray(small), labels_hw, len(annotations)))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=THUMB_QUALITY)
        return buffer.getvalue()


def small_labels(annotations: Sequence[Mapping[str, Any]], height: int, width: int) -> NDArray[np.int32]:
    """Which mask is on top of each pixel of a thumbnail, sampled from run lengths at nearest pixels.

    Args:
        annotations: SA-1B's.
        height, width: of the thumbnail in px.

    Returns:
        int32[h, w]: 0 for no mask, else 1 + the mask's place.

    Raises:
        DatasetError: run lengths that are damaged.
    """
    labels_hw = np.zeros((height, width), np.int32)
    order = sorted(range(len(annotations)), key=lambda place: -int(annotations[place]["area"]))
    for place in order[:MOST_PAINTED]:
        rle = Rle.from_coco(annotations[place]["segmentation"])
        try:
            ends = np.cumsum(run_lengths(rle))
        except ValueError as exc:
            raise DatasetError(f"annotation {annotations[place].get('id')}: {exc}") from exc
        rows, cols = nearest(rle.height, height), nearest(rle.width, width)
        left, top, wide, high = annotations[place]["bbox"]
        at_y = np.flatnonzero((rows >= top) & (rows <= top + high))
        at_x = np.flatnonzero((cols >= left) & (cols <= left + wide))
        flat_hw = cols[at_x][None, :] * rle.height + rows[at_y][:, None]
        inside_hw = np.searchsorted(ends, flat_hw, side="right") % 2 == 1
        part_hw = labels_hw[np.ix_(at_y, at_x)]
        part_hw[inside_hw] = place + 1
        labels_hw[np.ix_(at_y, at_x)] = part_hw
    return labels_hw


def _painted(
    picture_hw3: NDArray[np.uint8], labels_hw: NDArray[np.int32], num_masks: int
) -> NDArray[np.uint8]:
    """The thumbnail under its masks, each with a bright edge of a pixel."""
    colours = np.concatenate([np.zeros((1, 3), np.uint8), mask_colours(num_masks)])
    colour_hw3 = colours[labels_hw].astype(np.float32)
    weight_hw1 = np.where(labels_hw[..., None] > 0, OPACITY, 0.0).astype(np.float32)
    edge_hw = np.zeros(labels_hw.shape, np.bool_)
    edge_hw[:, 1:] |= labels_hw[:, 1:] != labels_hw[:, :-1]
    edge_hw[1:] |= labels_hw[1:] != labels_hw[:-1]
    weight_hw1[edge_hw & (labels_hw > 0)] = 0.95
    mixed = picture_hw3 * (1 - weight_hw1) + colour_hw3 * weight_hw1
    return np.round(mixed).astype(np.uint8)
