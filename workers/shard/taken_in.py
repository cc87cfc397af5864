"""Pictures of a shard's sources: read, made upright and small enough, as the images column stores them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from maskmill.pipeline.phash import picture_hash
from maskmill.storage.care.rewrite import forgotten_reject
from maskmill.storage.dataset.images import to_sample
from maskmill.storage.dataset.records import Reject
from maskmill.storage.plan.sources import PlannedImage, SourceRead, read_source, read_sources
from maskmill.workers.foreign.images.codec import normalise
from maskmill.workers.run.events import NARROW_RANGE
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.spec import IMAGES, ShardTask
from maskmill.workers.shard.ahead import read_ahead
from maskmill.workers.shard.meter import Meter
from maskmill.workers.shard.rejects import or_reject
from maskmill.workers.stages.base import EncodedSample, Picture


@dataclass(frozen=True)
class Source:
    """A planned image, and what gives its bytes."""

    planned: PlannedImage
    read: Callable[[], bytes]


@dataclass(frozen=True)
class TakenIn:
    """A picture, and what the images column stores of it."""

    encoded: EncodedSample
    picture: Picture


def sources_of(planned: Sequence[PlannedImage], depth: int, *, max_bytes: int) -> Generator[Source]:
    """The sources of a shard: neighbours in a tar come from one stream, single files are read where decoded.

    Args:
        planned: the shard's images, at least one.
        depth: images of a tar that are read ahead.
        max_bytes: of an image with more nothing is read.
    """
    if not planned[0].in_tar:
        yield from (Source(image, partial(read_source, image, max_bytes)) for image in planned)
        return
    with closing(read_ahead(read_sources(planned, max_bytes), depth)) as reads:
        yield from (Source(read.image, partial(_bytes_of, read)) for read in reads)


def _bytes_of(read: SourceRead) -> bytes:
    if read.error is not None:
        raise read.error
    assert read.data is not None
    return read.data


def take_in(
    source: Source, *, ingest: IngestSettings, forgotten: frozenset[str], task: ShardTask, meter: Meter
) -> TakenIn | Reject:
    """Reads and decodes one source, or says why it cannot be used.

    Args:
        source: of the shard.
        ingest: how images are taken in.
        forgotten: keys that were removed on request.
        task: the turn, for rejects and errors.
        meter: gets "images.read", "images.normalise" and "images.hash".

    Raises:
        StorageError: the store failed; any error but those of a bad sample.
    """
    key = source.planned.key
    if key in forgotten:
        return forgotten_reject(key)
    return or_reject(task, IMAGES, key, lambda: normalised(source, ingest, meter))


def normalised(source: Source, ingest: IngestSettings, meter: Meter) -> TakenIn:
    """Reads and decodes one source; arguments as `take_in`.

    Raises:
        DecodeError, InputError, StorageError: whatever is wrong with it.
    """
    planned = source.planned
    with meter.step("images.read"):
        data = source.read()
    with meter.step("images.normalise"):
        image = normalise(data, ingest)
    if image.narrow:
        meter.remark(NARROW_RANGE)

    # A member of a tar that conforms stays where it is
    in_place = planned.in_tar and not image.converted
    sample = to_sample(
        planned,
        jpeg=None if in_place else image.jpeg,
        width=image.width,
        height=image.height,
        converted=image.converted,
    )
    picture = Picture(
        key=planned.key,
        image_id=planned.image_id,
        pixels_HWC=image.pixels_HWC,
        caption=planned.caption,
        source=planned.label,
    )
    with meter.step("images.hash"):
        row = {
            "key": planned.key,
            "image_id": planned.image_id,
            "width": image.width,
            "height": image.height,
            "sha256": planned.sha256,
            "phash": picture_hash(image.pixels_HWC),
        }
    return TakenIn(EncodedSample(sample, (row,)), picture)
