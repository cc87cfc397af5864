"""Which store an address belongs to. To add one (Google's, Azure's): a file beside this, and its line here.

    /data/set, ~/set, file:///data/set      a local folder
    s3://bucket/prefix                      a bucket, and what its names begin with

A remote address is `scheme://bucket/name`. What else differs between kinds is asked here and nowhere else.

It does not know: what a store does (base.py says it, suite.py tries it).
"""

from __future__ import annotations

import os
import posixpath

from maskmill.storage.errors import AccessDenied, InputError, StorageError, StoreUnavailable
from maskmill.storage.stores import local, s3
from maskmill.storage.stores.base import ObjectStore, StoreKind
from maskmill.storage.stores.local import check_place, local_path

KINDS: tuple[StoreKind, ...] = (local.KIND, s3.KIND)
"""The kinds of store there are, plain paths first."""


def address_forms() -> str:
    """How an address may look, for messages: "a local path or s3://bucket/prefix"."""
    return " or ".join(kind.form for kind in KINDS)


def kind_of(address: str) -> StoreKind:
    """The kind of store that an address belongs to.

    Raises:
        InputError: it begins with a scheme that no kind has.
    """
    scheme, found, _ = address.partition("://")
    wanted = scheme if found and scheme != "file" else ""
    for kind in KINDS:
        if kind.scheme == wanted:
            return kind
    raise InputError(f"{address}: unknown kind of address; use {address_forms()}")


def is_known(address: str) -> bool:
    """Whether some kind of store has such addresses."""
    try:
        kind_of(address)
    except InputError:
        return False
    return True


def is_remote(address: str) -> bool:
    """Whether an address is one of a known store that isn't this machine's own disk."""
    return is_known(address) and kind_of(address).scheme != ""


def open_store(root: str | os.PathLike[str]) -> ObjectStore:
    """The store for a root: a local folder (need not exist yet) or `s3://bucket/prefix`. Changes nothing.

    Raises:
        InputError: empty, another scheme, no bucket, or a path that no folder can have.
    """
    text = os.fspath(root)
    if not text:
        raise InputError(f"an empty path is no place for a dataset; use {address_forms()}")
    kind, address = kind_of(text), absolute_address(text)
    return kind.make(address if kind.scheme else check_place(address))


def address_store(address: str) -> tuple[ObjectStore, str]:
    """The store and name of one absolute address: `/a/b.jpg` or `s3://bucket/a/b.jpg`.

    Raises:
        InputError: not absolute, another scheme, or no object name in it.
    """
    kind = kind_of(address)
    if kind.scheme:
        root, name = split_bucket(address)
        if not name:
            raise InputError(f"{address}: names no object; use {kind.scheme}://bucket/name")
        return kind.make(root), name

    path = local_path(address)
    folder, _, name = path.rpartition("/")
    if not name or not path.startswith("/"):
        raise InputError(f"{address}: not the absolute address of one file")
    return kind.make(folder or "/"), name


def split_bucket(address: str) -> tuple[str, str]:
    """A remote address as root of its bucket and the rest: `s3://bucket/a/b` gives `s3://bucket`, `a/b`."""
    scheme, _, rest = address.partition("://")
    bucket, _, name = rest.partition("/")
    return f"{scheme}://{bucket}", name


def absolute_address(text: str) -> str:
    """The same address in whatever folder it is read, without a slash at its end.

    Raises:
        InputError: another scheme, no bucket, or a character that no path has.
    """
    if scheme := kind_of(text).scheme:
        if not split_bucket(text)[0].removeprefix(f"{scheme}://"):
            raise InputError(f"{text}: names no bucket; use {scheme}://bucket/prefix")
        return text.rstrip("/")
    if "\0" in text:
        raise InputError(f"{text!r}: a path can't hold the character \\0; check how it was made")
    return os.path.abspath(os.path.expanduser(local_path(text)))  # noqa: PTH100, PTH111 - keeps links


def address_beside(folder: str, entry: str) -> str:
    """The absolute address that an entry of a list means: its own, or relative to the list's folder.

    Args:
        folder: the list's, absolute.
        entry: an address, or a path relative to `folder`.

    Raises:
        InputError: another scheme.
    """
    if not is_remote(folder) or kind_of(entry).scheme or entry.startswith("file://"):
        return absolute_address(entry if "://" in entry else os.path.join(folder, entry))  # noqa: PTH118
    root, prefix = split_bucket(folder)
    return f"{root}/{posixpath.normpath(posixpath.join(prefix, entry)).lstrip('/')}"


def is_inside(address: str, root: str) -> bool:
    """Whether an absolute address is `root` or lies below it, links followed."""
    if kind_of(address) != kind_of(root):
        return False
    if not kind_of(address).scheme:
        address = os.path.realpath(absolute_address(address))
        root = os.path.realpath(absolute_address(root))
    return f"{address}/".startswith(f"{root.rstrip('/')}/")


def is_silence(address: str, exc: StorageError) -> bool:
    """Whether an error of reading an address says nothing of what is there: a remote store was out of reach.

    Not answering, or not letting us look, is no damage. A disk that fails a read is.
    """
    return is_remote(address) and isinstance(exc, StoreUnavailable | AccessDenied)
