"""From listed files to hashed images: every input is read once, by several threads, in a fixed order.

Files come in small batches, a tar is a unit of its own and streamed: its images are hashed as they pass by.
Results leave in the order of the listing; what runs ahead is held in bounded queues. Which members of a tar
are photographs, dry runs ask here too (`walk_samples`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Generic, Protocol, TypeVar

from maskmill.storage.errors import BucketNotFound, NotAFile, ObjectNotFound, StorageError, StoreUnavailable
from maskmill.storage.plan.endings import CAPTION_ENDINGS, IMAGE_ENDINGS, ending_of
from maskmill.storage.plan.grouped import Group, key_and_field
from maskmill.storage.plan.patience import open_patiently, within
from maskmill.storage.plan.sources import source_label
from maskmill.storage.plan.walk import InputFile, InputProblem
from maskmill.storage.shards.tars import TarDamage, TarMember, scan_tar
from maskmill.storage.stores.in_order import in_order
from maskmill.storage.stores.open import address_store, is_remote

log = logging.getLogger(__name__)

MAX_CAPTION_BYTES = 64 << 10  # a longer .txt or .json beside an image is no caption
CHUNK_BYTES = 1 << 20
FILES_PER_UNIT = 16


@dataclass(frozen=True)
class HashedImage:
    """An image that was read: the fields of a PlannedImage that the source decides.

    `caption_unread`: a caption lies beside it in another encoding than UTF-8.
    """

    source: str
    member: str
    offset: int
    size_bytes: int
    etag: str
    sha256: str
    caption: str | None
    caption_unread: bool = False


@dataclass(frozen=True)
class KnownInput:
    """Something an earlier plan has already: not read again.

    Attributes:
        source: the file, or the tar it lies in.
        num_images: planned images among it.
    """

    source: str
    num_images: int


@dataclass(frozen=True)
class ScannedTar:
    """The end of a tar.

    Attributes:
        source: its address.
        etag: when it was scanned.
        skipped: members that are no images or captions, by ending.
    """

    source: str
    etag: str
    skipped: Counter[str]


Examined = HashedImage | KnownInput | InputProblem | ScannedTar
_Member = HashedImage | KnownInput | InputProblem

T = TypeVar("T")

NOT_UTF8 = "(captions that are not UTF-8)"


class Known(Protocol):
    """What earlier plans know; asked from several threads."""

    def knows_image(self, source: str, member: str, offset: int, etag: str) -> KnownInput | None:
        """Whether the very same bytes were planned or rejected."""

    def knows_tar(self, source: str, etag: str) -> KnownInput | None:
        """Whether the tar was scanned to its end."""


def examine(
    found: Iterable[InputFile | InputProblem],
    known: Known,
    num_threads: int,
    *,
    photograph: str | None = None,
) -> Generator[Examined]:
    """Reads what `known` doesn't know; results in the order of `found`.

    Args:
        found: as listed.
        known: what earlier plans have.
        num_threads: files or tars read at once.
        photograph: the field of a sample that is the photograph; None goes by grouped.py's rule.

    Raises:
        StoreUnavailable: an S3 store doesn't answer; it would be wrong to reject what can't be reached today.
    """
    return in_order(_units(found), lambda unit: _examine_unit(unit, known, photograph), num_threads)


def _units(found: Iterable[InputFile | InputProblem]) -> Iterator[list[InputFile | InputProblem]]:
    batch: list[InputFile | InputProblem] = []
    for item in found:
        is_tar = isinstance(item, InputFile) and item.kind == "tar"
        if batch and (is_tar or len(batch) == FILES_PER_UNIT):
            yield batch
            batch = []
        if is_tar:
            yield [item]
        else:
            batch.append(item)
    if batch:
        yield batch


def _examine_unit(
    unit: list[InputFile | InputProblem], known: Known, photograph: str | None
) -> Iterator[Examined]:
    for item in unit:
        if isinstance(item, InputProblem):
            yield item
        elif item.kind == "tar":
            yield from _examine_tar(item, known, photograph)
        else:
            yield _examine_image(item, known)


def _examine_image(file: InputFile, known: Known) -> Examined:
    already = known.knows_image(file.source, "", 0, file.etag)
    if already is not None:
        return already
    try:
        with open_patiently(file.source) as stream:
            sha256, num_bytes = _hash(stream, None)
    except StorageError as exc:
        return _problem(file, exc)
    data = _read_caption(file.caption_source)
    caption = caption_text(ending_of(file.caption_source), data)
    return HashedImage(file.source, "", 0, num_bytes, file.etag, sha256, caption, not is_utf8(data))


def _examine_tar(file: InputFile, known: Known, photograph: str | None) -> Iterator[Examined]:
    already = known.knows_tar(file.source, file.etag)
    if already is not None:
        yield already
        return

    skipped = Counter[str]()
    try:
        with open_patiently(file.source) as stream:
            reading = Reading[_Member](
                image=lambda found: _hashed(file, found, stream, known),
                caption=lambda found: _caption_in(found, stream, skipped),
            )
            for found in walk_samples(stream, file.size_bytes, reading, photograph, skipped):
                if isinstance(found, TarDamage):
                    source = source_label(file.source, found.member)
                    yield InputProblem(
                        source, "tar_damaged", f"byte {found.offset}: {found.detail}", file.etag
                    )
                    continue
                member, caption = found
                yield replace(member, caption=caption) if isinstance(member, HashedImage) else member
    except StorageError as exc:
        yield _problem(file, exc)
        return
    yield ScannedTar(file.source, file.etag, skipped)


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What is made of a tar's member while the stream stands at its first byte.

    Attributes:
        image: of one that is an image by its ending; it may be no plain file.
        caption: of a sidecar; None where it has no text.
    """

    image: Callable[[TarMember], T]
    caption: Callable[[TarMember], str | None]


def walk_samples(
    stream: BinaryIO, size_bytes: int, reading: Reading[T], photograph: str | None, skipped: Counter[str]
) -> Iterator[tuple[T, str | None] | TarDamage]:
    """A tar's photographs with their captions, sample by sample by grouped.py's rule, and at most one damage.

    Args:
        stream: seekable, at its start; when a photograph comes, it stands behind its sample.
        size_bytes: of the whole tar.
        reading: of members.
        photograph: as `examine` has it.
        skipped: gets a count, by ending or field, for each member that is neither photograph nor caption.

    Raises:
        StorageError: the tar cannot be read further; what was whole before has come.
    """
    group = Group[T]()
    try:
        for found in scan_tar(stream, size_bytes):
            if isinstance(found, TarDamage):
                yield found
                continue

            # Members of one key, until another key comes
            key, _ = key_and_field(found.name)
            if key != group.key:
                yield from group.photographs(photograph, skipped)
                group = Group(key)
            _take_member(group, found, reading, skipped)
            if group.is_full:
                yield from group.divide().photographs(photograph, skipped)
    except StorageError:
        yield from group.photographs(photograph, skipped)
        raise
    yield from group.photographs(photograph, skipped)


def _take_member(group: Group[T], found: TarMember, reading: Reading[T], skipped: Counter[str]) -> None:
    """One complete member, into the group or counted as skipped."""
    ending, (_, field) = ending_of(found.name), key_and_field(found.name)
    if found.name.rpartition("/")[2].startswith("."):
        skipped["(hidden)"] += 1
    elif ending in CAPTION_ENDINGS and found.is_file:
        text = reading.caption(found)
        if text is not None:
            group.captions[field] = text
    elif ending in IMAGE_ENDINGS:
        group.images.append((field, reading.image(found)))
    elif found.is_file:
        skipped[ending or "(no ending)"] += 1


def _caption_in(found: TarMember, stream: BinaryIO, skipped: Counter[str]) -> str | None:
    """The text of a sidecar; one that is too long or that nobody can read is counted."""
    ending = ending_of(found.name)
    if found.size_bytes > MAX_CAPTION_BYTES:
        skipped[f"({ending} too long for a caption)"] += 1
        return None
    data = stream.read(found.size_bytes)
    if not is_utf8(data):
        skipped[NOT_UTF8] += 1
    return caption_text(ending, data)


def _hashed(file: InputFile, found: TarMember, stream: BinaryIO, known: Known) -> _Member:
    already = known.knows_image(file.source, found.name, found.offset, file.etag)
    if already is not None:
        return already
    label = source_label(file.source, found.name)
    if not found.is_file:
        return InputProblem(label, "not_a_file", "a folder, link, device or sparse file", file.etag)
    if found.size_bytes == 0:
        return InputProblem(label, "empty_file", "0 bytes", file.etag)
    sha256, num_bytes = _hash(stream, found.size_bytes)
    if num_bytes != found.size_bytes:
        return InputProblem(
            label, "tar_damaged", f"ends after {num_bytes} of {found.size_bytes} bytes", file.etag
        )
    return HashedImage(file.source, found.name, found.offset, num_bytes, file.etag, sha256, None)


def is_utf8(data: bytes) -> bool:
    """Whether these bytes are UTF-8, a byte order mark or not."""
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return True


def caption_text(ending: str, data: bytes) -> str | None:
    """The caption in a sidecar's bytes: the text of a .txt, "caption" of a .json object, or None."""
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text) if ending == ".json" else text
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None
    caption = found.get("caption") if isinstance(found, dict) else found
    if not isinstance(caption, str) or not caption.strip():
        return None
    return caption.strip().encode("utf-8", "replace").decode()  # JSON can hold lone surrogates


def _read_caption(source: str) -> bytes:
    """What lies beside an image; nothing where it can't be read or is too long."""
    if not source:
        return b""
    store, name = address_store(source)
    try:
        data = within(source, lambda: store.read(name, 0, MAX_CAPTION_BYTES + 1))
    except StorageError as exc:
        log.warning("caption not read: %s", exc)
        return b""
    return data if len(data) <= MAX_CAPTION_BYTES else b""


def _hash(stream: BinaryIO, size_bytes: int | None) -> tuple[str, int]:
    """sha256 of the next `size_bytes` (all if None), and how many there were."""
    sha256, num_bytes = hashlib.sha256(), 0
    while size_bytes is None or num_bytes < size_bytes:
        data = stream.read(CHUNK_BYTES if size_bytes is None else min(CHUNK_BYTES, size_bytes - num_bytes))
        if not data:
            break
        sha256.update(data)
        num_bytes += len(data)
    return sha256.hexdigest(), num_bytes


def _problem(file: InputFile, exc: StorageError) -> InputProblem:
    if isinstance(exc, StoreUnavailable) and is_remote(file.source):
        raise exc
    reason = "unreadable"
    if isinstance(exc, ObjectNotFound | BucketNotFound):
        reason = "missing"
    elif isinstance(exc, NotAFile):
        reason = "not_a_file"
    return InputProblem(file.source, reason, str(exc), file.etag)
