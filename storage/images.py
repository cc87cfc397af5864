"""The `images` column: pixels copied in, or left where they are and referred to.

A sample is <key>.json, which says where the image came from, and <key>.jpg, unless the image stays in place:
then the json says `"reference": true` and the reader fetches the bytes from the source, checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from storage.columns import CommitRecord
from storage.errors import DamagedObject
from storage.objects import ObjectStore
from storage.shards import Sample, read_shard
from storage.sources import PlannedImage, read_sources

MAX_REFERENCES = 64  # resolved at once: their samples wait, not their bytes

_FIELDS = ("image_id", "source", "member", "offset", "size_bytes", "etag", "sha256", "caption")


def image_sample(
    image: PlannedImage,
    *,
    data: bytes | None,
    ending: str = "jpg",
    extra: Mapping[str, str | int | float | bool | None] | None = None,
) -> Sample:
    """A sample of the `images` column.

    Args:
        image: as planned.
        data: the encoded picture, or None to leave it at its source.
        ending: of `data`.
        extra: more for the json, e.g. width and height.

    Raises:
        ValueError: `extra` names a field that the plan decides.
    """
    info: dict[str, object] = {name: getattr(image, name) for name in _FIELDS}
    info["reference"] = data is None
    clash = info.keys() & (extra or {}).keys()
    if clash:
        raise ValueError(f"extra fields {sorted(clash)} are the plan's; choose other names")
    info.update(extra or {})
    files = {"json": json.dumps(info, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()}
    if data is not None:
        files[ending] = data
    return Sample(image.key, files)


def read_images(store: ObjectStore, record: CommitRecord, *, ending: str = "jpg") -> Iterator[Sample]:
    """The samples of an `images` shard with their pictures, references resolved under `ending`.

    Raises:
        DamagedObject: as shards.read_shard.
        SourceChanged, ObjectNotFound, AccessDenied, StoreUnavailable: the source isn't as planned.
    """
    waiting: list[tuple[Sample, PlannedImage]] = []
    for sample in read_shard(store, record.data):
        image = referred_image(sample, record.shard)
        if image is not None:
            waiting.append((sample, image))
        if image is None or len(waiting) == MAX_REFERENCES:
            yield from _resolve(waiting, ending)
            waiting = []
        if image is None:
            yield sample
    yield from _resolve(waiting, ending)


def referred_image(sample: Sample, shard: int) -> PlannedImage | None:
    """The source that an `images` sample refers to, None if it holds the picture. Raises DamagedObject."""
    try:
        info = json.loads(sample.files["json"])
        if not info["reference"]:
            return None
        return PlannedImage(key=sample.key, shard=shard, **{name: info[name] for name in _FIELDS})
    except (ValueError, KeyError, TypeError) as exc:
        raise DamagedObject(f"shard {shard}, {sample.key}.json: doesn't describe an image ({exc})") from exc


def _resolve(waiting: list[tuple[Sample, PlannedImage]], ending: str) -> Iterator[Sample]:
    reads = read_sources([image for _, image in waiting])
    for (sample, _), found in zip(waiting, reads, strict=True):
        if found.data is None:
            assert found.error is not None
            raise found.error
        yield Sample(sample.key, {**sample.files, ending: found.data})
