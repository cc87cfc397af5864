"""A few images drawn from the inputs before any plan exists, for `tune` and for a dry run.

How it works: the listing is walked once, to its end, and image files are drawn evenly (a reservoir);
nothing but the drawn files is read. Tars are not scanned whole: the first photographs of a few drawn tars
are read, and photographs per byte there stand for all tars. What is a photograph is what a plan takes for one
(examine.py): label maps beside it are none.

What it does not know: duplicates and unreadable files, which only the plan finds; what lies deep inside tars.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from maskmill.storage.errors import ObjectNotFound
from maskmill.storage.plan.examine import Reading, walk_samples
from maskmill.storage.plan.inputs import list_inputs
from maskmill.storage.plan.patience import open_patiently, within
from maskmill.storage.plan.walk import InputFile, InputProblem
from maskmill.storage.shards.tars import TarDamage
from maskmill.storage.stores.open import address_store
from maskmill.workers.run.ingest_settings import IngestSettings

TARS_OPENED = 3
IMAGES_PER_TAR = 64


@dataclass(frozen=True)
class DrawnImage:
    """An image file's bytes; `source` of a tar's member is `tar::member`."""

    source: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class InputSample:
    """What was drawn, and what it was drawn from.

    Attributes:
        images: those drawn.
        num_images: image files and images in tars; the latter are estimated where `tars_estimated`.
        size_bytes: of image files and tars.
        tars_estimated: tars whose images are estimated from the first ones of a few.
        problems: reason -> inputs that cannot be used, by the listing.
        skipped: ending -> files that are neither image, tar nor caption.
    """

    images: tuple[DrawnImage, ...]
    num_images: int
    size_bytes: int
    tars_estimated: int
    problems: Mapping[str, int]
    skipped: Mapping[str, int]


@dataclass
class _Census:
    """The listing in numbers, with evenly drawn image files and tars."""

    drawn_images: list[InputFile]
    drawn_tars: list[InputFile]
    num_images: int = 0
    num_tars: int = 0
    image_bytes: int = 0
    tar_bytes: int = 0


def sample_inputs(
    inputs: Sequence[str],
    num_images: int,
    *,
    seed: int = 0,
    dataset_root: str | None = None,
    ingest: IngestSettings = IngestSettings(),  # noqa: B008 - frozen
) -> InputSample:
    """Draws images evenly from the inputs.

    Args:
        inputs: as `generate` takes them.
        num_images: to draw; fewer come back if there are fewer, or if some vanish meanwhile.
        seed: draws which.
        dataset_root: passed over inside the inputs.
        ingest: which field of a sample is the photograph, and how much of a file is read.

    Raises:
        maskmill.storage.errors.InputError: an input is missing, unreadable, or holds no image.
    """
    # One pass over all names: counts, and a fair draw of each kind
    draw = random.Random(seed)
    listing = list_inputs(inputs, dataset_root=dataset_root, photograph=ingest.photograph)
    census, problems = _Census([], []), dict[str, int]()
    for found in listing:
        if isinstance(found, InputProblem):
            problems[found.reason] = problems.get(found.reason, 0) + 1
        elif found.kind == "tar":
            census.num_tars += 1
            census.tar_bytes += found.size_bytes
            _reservoir(census.drawn_tars, found, census.num_tars, TARS_OPENED, draw)
        else:
            census.num_images += 1
            census.image_bytes += found.size_bytes
            _reservoir(census.drawn_images, found, census.num_images, num_images, draw)

    # As many from tars as are their share
    in_tars, num_in_tars = _look_into_tars(census, ingest)
    total = census.num_images + num_in_tars
    from_tars = min(len(in_tars), round(num_images * num_in_tars / total)) if total else 0
    if num_in_tars and not census.num_images:
        from_tars = min(len(in_tars), num_images)
    files = [
        image for file in census.drawn_images[: num_images - from_tars] for image in _read_file(file, ingest)
    ]

    return InputSample(
        images=(*files, *draw.sample(in_tars, from_tars)),
        num_images=total,
        size_bytes=census.image_bytes + census.tar_bytes,
        tars_estimated=census.num_tars,
        problems=problems,
        skipped=dict(listing.skipped),
    )


def _reservoir(
    drawn: list[InputFile], item: InputFile, num_seen: int, size: int, draw: random.Random
) -> None:
    """Keeps every item seen with equal chance; the order of what is kept is random too."""
    if len(drawn) < size:
        drawn.insert(draw.randrange(len(drawn) + 1), item)
    else:
        place = draw.randrange(num_seen)
        if place < size:
            drawn[place] = item


def _read_file(file: InputFile, ingest: IngestSettings) -> Iterator[DrawnImage]:
    store, name = address_store(file.source)
    try:
        data = within(file.source, lambda: store.read(name, 0, ingest.max_bytes + 1))
        yield DrawnImage(file.source, data)
    except ObjectNotFound:
        return


def _look_into_tars(census: _Census, ingest: IngestSettings) -> tuple[list[DrawnImage], int]:
    """The first photographs of the drawn tars, and how many all tars hold by the same rate a byte."""
    images: list[DrawnImage] = []
    bytes_read = 0
    for tar in census.drawn_tars:
        found, num_bytes = _first_images(tar, ingest)
        images.extend(found)
        bytes_read += num_bytes
    return images, round(len(images) * census.tar_bytes / bytes_read) if bytes_read else 0


def _first_images(tar: InputFile, ingest: IngestSettings) -> tuple[list[DrawnImage], int]:
    """Up to `IMAGES_PER_TAR` photographs from the start of a tar, and the bytes that they and theirs took."""
    images: list[DrawnImage] = []
    with open_patiently(tar.source) as stream:
        reading = Reading(image=lambda member: member, caption=lambda _: None)
        for found in walk_samples(stream, tar.size_bytes, reading, ingest.photograph, Counter()):
            if isinstance(found, TarDamage):
                break  # the plan will say so; what was whole counts
            member, _ = found
            behind = stream.tell()
            if member.is_file and member.size_bytes:
                stream.seek(member.offset)
                data = stream.read(min(member.size_bytes, ingest.max_bytes + 1))
                images.append(DrawnImage(f"{tar.source}::{member.name}", data))
            if len(images) == IMAGES_PER_TAR:
                return images, behind
    return images, tar.size_bytes
