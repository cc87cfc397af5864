"""Samples of a generation as readers of pictures want them: the photograph, upright, and its masks' record.

Images whose masks were rejected, or not made yet, are passed over here; whoever counts does so by records.
Where people's masks are preferred, a picture that was reviewed has theirs, any other its automatic ones.
"""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image

from maskmill.storage.dataset.images import StoredImage, stored_image
from maskmill.storage.dataset.join import join_shard
from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.shards import Sample
from maskmill.workers.foreign.images.codec import DecodeError, normalise
from maskmill.workers.reading.words import with_same_words, with_words, word_columns
from maskmill.workers.run.columns import IMAGES, MASKS
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.stages.registry import standing_in

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.join import JoinedSample
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.stores.base import ObjectStore

SMALLEST_LIMIT_PX = 64  # `IngestSettings.max_shorter_side_px` starts there


@dataclass(frozen=True, eq=False)
class AnnotatedSample:
    """An image with masks.

    Attributes:
        key: of the sample.
        image: the photograph as stored, None where only masks were asked for.
        record: the SA-1B record, as stored, or with the words of other columns put in.
        column: that the record is from.
    """

    key: str
    image: StoredImage | None
    record: dict[str, Any]
    column: str = MASKS

    def jpeg(self) -> bytes:
        """The photograph as a JPEG of the record's size; see `upright_jpeg`."""
        assert self.image is not None
        info = self.record["image"]
        return upright_jpeg(self.image.jpeg, int(info["width"]), int(info["height"]), self.image.source)


def mask_columns(generation: Generation, column: str = MASKS, *, people: bool = False) -> tuple[str, ...]:
    """The columns that an image's masks are read from: the first that has a record of it.

    Args:
        generation: what is read.
        column: that was asked for.
        people: prefer what people made, where `column` is the automatic masks'.
    """
    if column != MASKS or not people:
        return (column,)
    there = generation.columns
    return (*(name for name in standing_in() if name in there), MASKS)


def read_annotated(
    store: ObjectStore,
    generation: Generation,
    *,
    shards: Sequence[int] | None = None,
    pictures: bool = True,
    column: str = MASKS,
    people: bool = False,
    words: bool = False,
) -> Generator[AnnotatedSample, None, None]:
    """The images of a generation that have masks, in key order.

    Args:
        store: the dataset.
        generation: what to read.
        shards: only these, in this order.
        pictures: False leaves the photographs unread.
        column: that has the masks; imported ones have another.
        people: prefer people's masks; see `mask_columns`.
        words: put what other columns say of the masks in, as far as the generation has them; see words.py.

    Raises:
        maskmill.storage.errors.DamagedObject: a shard or a record is not what was written.
        maskmill.storage.errors.StorageError: a picture kept at its source isn't there as planned.
    """
    sources = mask_columns(generation, column, people=people)
    wanted = word_columns() if words and column == MASKS else ()
    columns = (*((IMAGES,) if pictures else ()), *sources, *wanted)
    for sample in _joined(store, generation, columns, sources, shards):
        source = next((name for name in sources if _has_record(sample, name)), None)
        if source is None:
            continue
        record = _record_of(sample, source)
        found = {name: _json_of(sample, name) for name in wanted if name in sample.files}
        if found and source == MASKS:
            record = with_words(record, found)
        elif found and MASKS in sample.files:
            record = with_same_words(record, with_words(_record_of(sample, MASKS), found))
        yield AnnotatedSample(sample.key, _image_of(sample), record, source)


def _joined(
    store: ObjectStore,
    generation: Generation,
    columns: Sequence[str],
    sources: Sequence[str],
    shards: Sequence[int] | None,
) -> Iterator[JoinedSample]:
    """The samples of shards that have any of the sources; the first column that a shard has leads."""
    by_shard: dict[int, dict[str, GenerationRow]] = {}
    for row in generation.rows():
        by_shard.setdefault(row.shard, {})[row.column] = row
    for shard in sorted(by_shard) if shards is None else shards:
        rows = by_shard.get(shard, {})
        if any(name in rows for name in sources):
            yield from join_shard(store, [rows[name] for name in columns if name in rows])


def _has_record(sample: JoinedSample, column: str) -> bool:
    """Whether a picture has masks there: a review may be null."""
    return sample.files.get(column, {}).get("json", b"null") != b"null"


def _image_of(sample: JoinedSample) -> StoredImage | None:
    if IMAGES not in sample.files:
        return None
    return stored_image(Sample(sample.key, sample.files[IMAGES]))


def _json_of(sample: JoinedSample, column: str) -> dict[str, Any]:
    try:
        record = json.loads(sample.files[column]["json"])
    except (ValueError, KeyError) as exc:
        raise DamagedObject(f"{column} of {sample.key}: has no readable json ({exc})") from exc
    if not isinstance(record, dict):
        raise DamagedObject(f"{column} of {sample.key}: its json is no object")
    return record


def _record_of(sample: JoinedSample, column: str) -> dict[str, Any]:
    try:
        record = json.loads(sample.files[column]["json"])
        if not isinstance(record["annotations"], list) or "width" not in record["image"]:
            raise DamagedObject(f"masks of {sample.key}: not an SA-1B record")
    except (ValueError, KeyError, TypeError) as exc:
        raise DamagedObject(f"masks of {sample.key}: not an SA-1B record ({exc})") from exc
    assert isinstance(record, dict)
    return record


def upright_jpeg(data: bytes, width: int, height: int, source: str) -> bytes:
    """A JPEG that any reader shows as the masks see it: upright and of this size.

    Args:
        data: the stored picture; if it is such a JPEG already, by its header, it comes back as it is.
        width, height: of the masks, in px.
        source: for errors.

    Raises:
        DamagedObject: the bytes cannot be decoded, or to another size.
    """
    if _conforms(data, width, height):
        return data
    limit_px = max(SMALLEST_LIMIT_PX, min(width, height))
    try:
        image = normalise(data, IngestSettings(max_shorter_side_px=limit_px, min_side_px=1))
    except DecodeError as exc:
        raise DamagedObject(f"{source}: could be decoded when its masks were made, not now ({exc})") from exc
    if (image.width, image.height) != (width, height):
        raise DamagedObject(
            f"{source}: is {image.width}x{image.height} px upright, but its masks are for {width}x{height}"
        )
    return image.jpeg


def _conforms(data: bytes, width: int, height: int) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return image.size == (width, height) and image.mode in ("RGB", "L") and orientation == 1
    except (OSError, ValueError, SyntaxError):
        return False
