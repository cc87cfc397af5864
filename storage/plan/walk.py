"""Walking a local folder or an S3 prefix for images and tars, with their captions.

Both walks are lazy, sorted, and account for every name: an image or tar, its caption, a problem, or a count
in `skipped` by ending. A local name that isn't UTF-8 gets a percent-encoded file:// address, to be kept in
records. Only regular files are ever opened: a pipe would wait for ever.

It does not know: what is inside the files.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskmill.storage.errors import AccessDenied, BucketNotFound, ObjectNotFound
from maskmill.storage.secret_words import blank_secrets
from maskmill.storage.stores.base import ObjectInfo, ObjectStore, join_address
from maskmill.storage.stores.local import local_etag
from maskmill.storage.stores.open import address_store, is_remote

IMAGE_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "AVIF": (".avif",),
}
"""What can be taken in: Pillow's name of a format and the endings of its files. The codec opens these formats
and no others (workers/foreign/images), and files with these endings are inputs: one list for both."""

IMAGE_ENDINGS = tuple(ending for endings in IMAGE_FORMATS.values() for ending in endings)
CAPTION_ENDINGS = (".txt", ".json")  # the first one found is used
TAR_ENDING = ".tar"

Skipped = Counter[str]


@dataclass(frozen=True)
class InputFile:
    """An image or a tar, not yet opened.

    Attributes:
        source: absolute address.
        kind: "image" or "tar".
        size_bytes: length.
        etag: changes when the bytes change.
        caption_source: address of the caption beside an image, or "".
    """

    source: str
    kind: Literal["image", "tar"]
    size_bytes: int
    etag: str
    caption_source: str = ""


@dataclass(frozen=True)
class InputProblem:
    """An input that cannot be used.

    Attributes:
        source: its address; `tar::member` inside a tar.
        reason: missing, unreadable, empty_file, not_a_file, unsupported, tar_damaged.
        detail: what exactly, for a person.
        etag: of the bytes, where there are any.
    """

    source: str
    reason: str
    detail: str
    etag: str = ""

    def __post_init__(self) -> None:
        for name in ("source", "detail"):  # both are stored and shown
            object.__setattr__(self, name, blank_secrets(getattr(self, name)))


def ending_of(name: str) -> str:
    """Lower-case ending with its dot, or "": `a/B.JPG` -> `.jpg`."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - names of S3 and tars are no paths


def walk_folder(top: Path, dataset_root: str | None, skipped: Skipped) -> Iterator[InputFile | InputProblem]:
    """Images and tars below a folder, sorted by name; each real folder once, however often linked."""
    visited: set[tuple[int, int]] = set()
    own_root = None if dataset_root is None or is_remote(dataset_root) else os.path.realpath(dataset_root)
    stack: list[Iterator[tuple[Path, Container[str]]]] = [iter([(top, ())])]
    while stack:
        path, beside = next(stack[-1], (None, ()))
        if path is None:
            stack.pop()
        elif os.path.isdir(path):  # noqa: PTH112 - Path's raises where a folder may not be entered
            found = path.stat()
            if (found.st_dev, found.st_ino) in visited:
                skipped["(folder reached twice)"] += 1
            elif own_root is not None and os.path.realpath(path) == own_root:
                skipped["(the dataset itself)"] += 1
            else:
                visited.add((found.st_dev, found.st_ino))
                try:
                    stack.append(_enter(path, skipped))
                except OSError as exc:
                    yield InputProblem(_local_source(path), "unreadable", f"folder: {exc.strerror}")
        else:
            yield look_at_local(path, beside)


def _enter(folder: Path, skipped: Skipped) -> Iterator[tuple[Path, Container[str]]]:
    """What to look at in a folder, sorted: folders, images, tars, with all names there; counts the rest."""
    with os.scandir(folder) as entries:
        names = {entry.name: _is_folder(entry) for entry in entries if not _hidden(entry.name, skipped)}
    stems = {_stem(name) for name in names if ending_of(name) in IMAGE_ENDINGS}
    wanted = []
    for name, is_folder in names.items():
        if is_folder or ending_of(name) in (*IMAGE_ENDINGS, TAR_ENDING):
            wanted.append(name)
        elif not (ending_of(name) in CAPTION_ENDINGS and _stem(name) in stems):
            skipped[ending_of(name) or "(no ending)"] += 1
    return iter([(folder / name, names) for name in sorted(wanted)])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except (
        OSError
    ):  # a link that leads round in circles, or into a closed folder: looked at as a file, and told
        return False


def _hidden(name: str, skipped: Skipped) -> bool:
    if name.startswith("."):
        skipped["(hidden)"] += 1
    return name.startswith(".")


def _stem(name: str) -> str:
    return name[: len(name) - len(ending_of(name))]


def look_at_local(path: Path, beside: Container[str] | None = None) -> InputFile | InputProblem:
    """An image or tar by its path, with size, etag and caption, or what is wrong with it.

    Args:
        path: absolute.
        beside: the names in its folder, if they are known.
    """
    source = _local_source(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        detail = "a link to nothing" if path.is_symlink() else "no such file"
        return InputProblem(source, "missing", detail)
    except OSError as exc:
        return InputProblem(source, "unreadable", exc.strerror or str(exc))
    if not stat.S_ISREG(found.st_mode):
        return InputProblem(source, "not_a_file", "a folder, pipe, socket or device, not a file")
    etag = local_etag(found)
    if found.st_size == 0:
        return InputProblem(source, "empty_file", "0 bytes", etag)
    if ending_of(path.name) == TAR_ENDING:
        return InputFile(source, "tar", found.st_size, etag)
    captions = [path.with_name(_stem(path.name) + ending) for ending in CAPTION_ENDINGS]
    there = (one for one in captions if (beside is None or one.name in beside) and one.is_file())
    caption = next((_local_source(one) for one in there), "")
    return InputFile(source, "image", found.st_size, etag, caption)


def _local_source(path: Path) -> str:
    """The path itself, or a file:// address if its bytes aren't UTF-8."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return path.as_uri()
    return os.fspath(path)


def look_at_remote(address: str) -> InputFile | InputProblem:
    """An image or tar by its remote address, with size, etag and caption, or what is wrong with it."""
    try:
        store, name = address_store(address)
        found = store.stat(name)
        beside = [_stem(name) + ending for ending in CAPTION_ENDINGS]
        captions = [] if ending_of(name) == TAR_ENDING else [one for one in beside if _exists(store, one)]
    except (ObjectNotFound, BucketNotFound) as exc:
        return InputProblem(address, "missing", str(exc))
    except AccessDenied as exc:
        return InputProblem(address, "unreadable", str(exc))
    return _remote_file(store, found, join_address(store.root, captions[0]) if captions else "")


def _exists(store: ObjectStore, name: str) -> bool:
    try:
        store.stat(name)
    except ObjectNotFound:
        return False
    return True


def _remote_file(store: ObjectStore, found: ObjectInfo, caption_source: str) -> InputFile | InputProblem:
    source = join_address(store.root, found.name)
    if found.size_bytes == 0:
        return InputProblem(source, "empty_file", "0 bytes", found.etag)
    kind: Literal["image", "tar"] = "tar" if ending_of(found.name) == TAR_ENDING else "image"
    return InputFile(source, kind, found.size_bytes, found.etag, caption_source)


def walk_prefix(
    store: ObjectStore,
    prefix: str,
    dataset_root: str | None,
    skipped: Skipped,
    pattern: re.Pattern[str] | None,
) -> Iterator[InputFile | InputProblem]:
    """Images and tars whose names start with `prefix` (and match `pattern`), sorted.

    An image waits until the sorted listing has passed all names that share its stem, so that its caption is
    known; only such a group is held in memory.
    """
    waiting: deque[ObjectInfo] = deque()
    captions: dict[str, bool] = {}  # sidecars seen, and whether an image has used them
    for found in store.list(prefix):
        yield from _release(store, waiting, captions, skipped, found.name)
        if dataset_root is not None and f"{store.root}/{found.name}".startswith(f"{dataset_root}/"):
            skipped["(the dataset itself)"] += 1
        elif any(part.startswith(".") for part in found.name[prefix.rfind("/") + 1 :].split("/")):
            skipped["(hidden)"] += 1
        elif found.name.endswith("/"):
            skipped["(folder marker)"] += 1
        elif ending_of(found.name) in CAPTION_ENDINGS:
            captions[found.name] = False
        elif pattern is not None and not pattern.fullmatch(found.name):
            skipped["(no match)"] += 1
        elif ending_of(found.name) in (*IMAGE_ENDINGS, TAR_ENDING):
            waiting.append(found)
        else:
            skipped[ending_of(found.name) or "(no ending)"] += 1
    yield from _release(store, waiting, captions, skipped, None)


def _release(
    store: ObjectStore,
    waiting: deque[ObjectInfo],
    captions: dict[str, bool],
    skipped: Skipped,
    at: str | None,
) -> Iterator[InputFile | InputProblem]:
    """Images, and unused sidecars, whose stems the listing has passed ('/' is the character after '.')."""
    while waiting and (at is None or at >= _stem(waiting[0].name) + "/"):
        found = waiting.popleft()
        beside = [_stem(found.name) + ending for ending in CAPTION_ENDINGS]
        used = [one for one in beside if one in captions]
        captions.update(dict.fromkeys(used, True))
        yield _remote_file(store, found, join_address(store.root, used[0]) if used else "")
    if waiting:
        return
    for name in [name for name in captions if at is None or at >= _stem(name) + "/"]:
        if not captions.pop(name):
            skipped[ending_of(name)] += 1
