"""Walking a local folder or an S3 prefix for images and tars, with their captions.

Both walks are lazy, in a fixed order, and account for every name: an image or tar, its caption, a problem, or
a count in `skipped` by ending or field. Which names are one picture's is grouped.py's rule, as in tars; what
was asked for by its own name, by a list or a pattern, is a picture whatever lies beside it.

A local name that isn't UTF-8 gets a percent-encoded file:// address, to be kept in records. Only regular
files are ever opened: a pipe would wait for ever.

It does not know: what is inside the files.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from maskmill.storage.errors import AccessDenied, BucketNotFound, ObjectNotFound
from maskmill.storage.plan.endings import CAPTION_ENDINGS, IMAGE_ENDINGS, TAR_ENDING, ending_of
from maskmill.storage.plan.grouped import Group, in_groups, key_and_field
from maskmill.storage.secret_words import blank_secrets
from maskmill.storage.stores.base import ObjectInfo, ObjectStore, join_address
from maskmill.storage.stores.local import local_etag
from maskmill.storage.stores.open import address_store, is_remote

MOST_BESIDE = 1000  # names of one key that are looked at for a remote picture's caption

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


def walk_folder(
    top: Path, dataset_root: str | None, skipped: Skipped, photograph: str | None = None
) -> Iterator[InputFile | InputProblem]:
    """Images and tars below a folder, sorted by name; each real folder once, however often linked."""
    visited: set[tuple[int, int]] = set()
    own_root = None if dataset_root is None or is_remote(dataset_root) else os.path.realpath(dataset_root)
    stack: list[Iterator[tuple[Path, str | None]]] = [iter([(top, None)])]
    while stack:
        path, caption = next(stack[-1], (None, None))
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
                    stack.append(_enter(path, skipped, photograph))
                except OSError as exc:
                    yield InputProblem(_local_source(path), "unreadable", f"folder: {exc.strerror}")
        else:
            yield look_at_local(path, caption)


def _enter(folder: Path, skipped: Skipped, photograph: str | None) -> Iterator[tuple[Path, str | None]]:
    """What to look at in a folder, sorted: folders, tars, images with captions' names; counts the rest."""
    with os.scandir(folder) as entries:
        names = {entry.name: _is_folder(entry) for entry in entries if not _hidden(entry.name, skipped)}
    wanted: dict[str, str | None] = {
        name: None for name, is_folder in names.items() if is_folder or ending_of(name) == TAR_ENDING
    }
    groups = in_groups(name for name, is_folder in names.items() if not is_folder)

    for group in groups.values():
        wanted.update(group.photographs(photograph, skipped))
        if not group.images:
            skipped.update(ending_of(name) for name in group.captions.values())
    for name in names.keys() - wanted.keys():
        if ending_of(name) not in (*IMAGE_ENDINGS, *CAPTION_ENDINGS):
            skipped[ending_of(name) or "(no ending)"] += 1
    return iter([(folder / name, caption) for name, caption in sorted(wanted.items())])


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


class Beside:
    """Which captions lie beside pictures that are asked for one by one; a folder is listed once for many."""

    def __init__(self) -> None:
        self._groups: tuple[Path, Mapping[str, Group[str]]] | None = None

    def caption_of(self, path: Path) -> str | None:
        """The name of a local picture's caption."""
        if self._groups is None or self._groups[0] != path.parent:
            self._groups = (path.parent, _groups_in(path.parent))
        return _caption_among(self._groups[1], path.name)


def _groups_in(folder: Path) -> Mapping[str, Group[str]]:
    try:
        with os.scandir(folder) as entries:
            return in_groups(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:  # the picture itself will say so
        return {}


def _caption_among(groups: Mapping[str, Group[str]], name: str) -> str | None:
    key, field = key_and_field(name)
    return groups[key].caption_of(field) if key in groups else None


def look_at_local(path: Path, caption: str | None) -> InputFile | InputProblem:
    """An image or tar by its path, with size, etag and caption, or what is wrong with it.

    Args:
        path: absolute.
        caption: the name of the file beside it that has its caption.
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
    there = caption is not None and path.with_name(caption).is_file()
    told = _local_source(path.with_name(caption)) if caption is not None and there else ""
    return InputFile(source, "image", found.st_size, etag, told)


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
        caption = None
        if ending_of(name) != TAR_ENDING:
            beside = islice(store.list(f"{key_and_field(name)[0]}."), MOST_BESIDE)
            caption = _caption_among(in_groups(one.name for one in beside), name)
    except (ObjectNotFound, BucketNotFound) as exc:
        return InputProblem(address, "missing", str(exc))
    except AccessDenied as exc:
        return InputProblem(address, "unreadable", str(exc))
    return _remote_file(store, found, caption)


def _remote_file(store: ObjectStore, found: ObjectInfo, caption: str | None) -> InputFile | InputProblem:
    source = join_address(store.root, found.name)
    if found.size_bytes == 0:
        return InputProblem(source, "empty_file", "0 bytes", found.etag)
    kind: Literal["image", "tar"] = "tar" if ending_of(found.name) == TAR_ENDING else "image"
    told = join_address(store.root, caption) if caption is not None else ""
    return InputFile(source, kind, found.size_bytes, found.etag, told)


def walk_prefix(
    store: ObjectStore,
    prefix: str,
    dataset_root: str | None,
    skipped: Skipped,
    pattern: re.Pattern[str] | None,
    photograph: str | None = None,
) -> Iterator[InputFile | InputProblem]:
    """Images and tars whose names start with `prefix` (and match `pattern`), in the order of the listing.

    What shares a key waits until the sorted listing has passed all of it, so that its captions are known;
    only such groups are held in memory.
    """
    groups: dict[str, Group[ObjectInfo]] = {}

    def given(group: Group[ObjectInfo]) -> Iterator[InputFile | InputProblem]:
        """A group's pictures; with a pattern, all that match it."""
        if pattern is not None:
            group.many = True
        for found, caption in group.photographs(None if pattern else photograph, skipped):
            yield _remote_file(store, found, caption)
        if not group.images:
            skipped.update(ending_of(name) for name in group.captions.values())

    for found in store.list(_whole_keys(prefix) if pattern is not None else prefix):
        for key in _passed(groups, found.name):
            yield from given(groups.pop(key))
        ending, (key, field) = ending_of(found.name), key_and_field(found.name)
        if dataset_root is not None and f"{store.root}/{found.name}".startswith(f"{dataset_root}/"):
            skipped["(the dataset itself)"] += 1
        elif any(part.startswith(".") for part in found.name[prefix.rfind("/") + 1 :].split("/")):
            skipped["(hidden)"] += 1
        elif found.name.endswith("/"):
            skipped["(folder marker)"] += 1
        elif ending in CAPTION_ENDINGS:
            groups.setdefault(key, Group(key)).captions[field] = found.name
        elif pattern is not None and not pattern.fullmatch(found.name):
            skipped["(no match)"] += 1
        elif ending == TAR_ENDING:
            yield _remote_file(store, found, None)
        elif ending in IMAGE_ENDINGS:
            group = groups.setdefault(key, Group(key))
            group.images.append((field, found))
            if group.is_full:
                yield from given(group.divide())
        else:
            skipped[ending or "(no ending)"] += 1
    for group in groups.values():
        yield from given(group)


def _whole_keys(prefix: str) -> str:
    """A pattern's beginning, cut so that what lies beside its matches is listed: `a/1.im` -> `a/1.`."""
    key, _ = key_and_field(prefix)
    return f"{key}." if len(key) < len(prefix) else prefix


def _passed(groups: Mapping[str, Group[ObjectInfo]], at: str) -> list[str]:
    """The keys that a sorted listing has left behind ('/' is the character after '.')."""
    return [key for key in groups if at >= f"{key}/"]
