"""Pictures of the images column, with what missing stages read of committed columns.

Where no missing stage needs pixels, the images are those of the plan and no photograph is read.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskmill.storage.dataset.images import StoredImage, read_images
from maskmill.storage.dataset.records import CommitRecord, Reject
from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.shards import Sample
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.run.spec import IMAGES
from maskmill.workers.shard.meter import Meter
from maskmill.workers.shard.read_back import ReadBack
from maskmill.workers.stages.base import Picture, Stage
from maskmill.workers.stages.build import Stages

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)
"""Of a picture whose stages need none."""


@dataclass(frozen=True)
class Stored:
    """An image of the images column, and what other columns have of it."""

    image: StoredImage
    columns: Mapping[str, Sample | Reject]


class StoredPictures:
    """A shard's pictures, for the stages that lack it.

    Args:
        stages: of the worker.
        missing: the stages that lack the shard, in order.
        images: the images column's record in force.
        records: of each stage's column, the record in force, None where there is none.
        meter: gets "<column>.decode_jpeg".
    """

    def __init__(
        self,
        stages: Stages,
        missing: Sequence[Stage],
        images: CommitRecord,
        records: Mapping[str, CommitRecord | None],
        meter: Meter,
    ) -> None:
        self._stages, self._missing, self._images = stages, missing, images
        self._records, self._meter = records, meter

    def read(self) -> Generator[Stored]:
        """The images in order, each with what the missing stages read; columns are checked to their ends.

        Raises:
            DamagedObject: a column is not what its record says.
        """
        wanted = sorted({column for stage in self._missing for column in stage.reads})
        read_back = ReadBack(
            {
                column: (self._stages.version(column), record)
                for column in wanted
                if (record := self._records[column]) is not None
            }
        )
        for image in self._pictures():
            yield Stored(image, read_back.take(image.key))
        read_back.finish()

    def _pictures(self) -> Iterator[StoredImage]:
        if any(stage.needs_pixels for stage in self._missing):
            return read_images(self._stages.version(IMAGES), self._images)
        return self._unseen()

    def _unseen(self) -> Iterator[StoredImage]:
        """The shard's images as the plan knows them: nothing is read for pixels that nobody needs."""
        rejected = {reject.key for reject in self._images.rejects}
        for planned in self._stages.planned(self._images.shard):
            if planned.key not in rejected:
                yield StoredImage(
                    key=planned.key,
                    image_id=planned.image_id,
                    jpeg=b"",
                    width=0,
                    height=0,
                    caption=planned.caption,
                    source=planned.label,
                    converted="",
                    by_reference=True,
                )

    def decode(self, column: str, stored: Stored) -> Picture:
        """The picture itself, with the outputs of the columns that were read back.

        Args:
            column: that is made of it, for the meter.
            stored: one of `read`.

        Raises:
            DecodeError: the photograph cannot be decoded.
            DamagedObject: a column's sample is none of its stage's.
        """
        image = stored.image
        with self._meter.step(f"{column}.decode_jpeg"):
            pixels_HWC = decode_image(image.jpeg) if image.jpeg else NO_PIXELS
        return Picture(
            key=image.key,
            image_id=image.image_id,
            pixels_HWC=pixels_HWC,
            caption=image.caption,
            source=image.source,
            given={name: self._output(name, found) for name, found in stored.columns.items()},
        )

    def _output(self, column: str, found: Sample | Reject) -> object:
        if isinstance(found, Reject):
            return found
        stage = next(stage for stage in self._stages.stages if stage.column == column)
        try:
            return stage.decode(found.files)
        except (ValueError, KeyError, TypeError) as error:
            record = self._records[column]
            assert record is not None
            raise DamagedObject(f"{record.data.name}: {found.key} cannot be read ({error})") from error
