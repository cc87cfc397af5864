"""What every store must keep, each promise tried on the real thing: on a test's store, or on your own bucket.

    for promise in PROMISES:
        promise.check(store)        raises BrokenPromise, or the store's own StorageError

`probe(root)` tries them all in a folder of its own below `root`, each in an empty place, and removes what it
wrote. `maskmill probe` prints what it found; the project's tests run the same on a folder, moto and Ceph.

It does not know: what only time or a broken machine shows (durability, interrupted connections).
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from maskmill.storage.errors import InputError, ObjectNotFound, StorageError
from maskmill.storage.stores.base import TEMP_PREFIX, ObjectStore, join_address
from maskmill.storage.stores.open import absolute_address, is_remote, open_store

NUM_LISTED = 1100  # more than one page of S3's thousand
LARGE_BYTES = 36 << 20  # three parts of a multipart upload
NUM_WRITERS = 8
NUM_RACES = 12
MAX_CLOCK_S = 60.0  # between the store's clock and this machine's, said, not judged
THREADS = 16

ODD_NAMES = (
    "a b/c d.jpg",
    "brackets[1]{2}(3).jpg",
    "glob*?.jpg",
    "percent%20%.jpg",
    "plus+and&equals=#hash;semi,comma@at!.jpg",
    "quote'double\"back\\slash.jpg",
    "-dash.jpg",
    "...dots...",
    "tilde~$dollar`tick.jpg",
    "\u00e9\u00df\u6f22\u5b57.jpg",
    "\U0001f600.jpg",
    f"{'long' * 50}.jpg",
    "/".join(["deep"] * 20),
)


class BrokenPromise(Exception):
    """A store did another thing than a dataset needs; the message says which."""


@dataclass(frozen=True)
class Promise:
    """One thing that a store must keep.

    Attributes:
        name: a word or two.
        says: the promise, a sentence.
        check: tries it on an empty store and may leave objects there. Raises BrokenPromise, StorageError.
    """

    name: str
    says: str
    check: Callable[[ObjectStore], None]


@dataclass(frozen=True)
class Outcome:
    """How a promise was kept.

    Attributes:
        name, says: the promise's.
        kept: whether it was.
        detail: what happened instead, "" if it was kept.
        seconds: that trying it took.
    """

    name: str
    says: str
    kept: bool
    detail: str
    seconds: float


def probe(root: str, *, tell: Callable[[str], None] = lambda name: None) -> tuple[Outcome, ...]:
    """Tries every promise on a store and removes what it wrote there, whatever happens.

    Args:
        root: a folder (made if it isn't there, and then removed) or s3://bucket/prefix.
        tell: called with each promise's name before it is tried.

    Raises:
        InputError: no store has such addresses.
        AccessDenied, BucketNotFound, OutOfSpace, StoreUnavailable: nothing can be written there at all.
    """
    top = join_address(absolute_address(open_store(root).root), f"maskmill-probe-{uuid.uuid4().hex[:12]}")
    already = _nearest_folder(root)
    store = open_store(top)
    try:
        store.put("first", b"may anything be written here?\n")
        outcomes = []
        for promise in PROMISES:
            tell(promise.name)
            outcomes.append(_tried(promise, open_store(f"{top}/{promise.name.replace(' ', '-')}")))
        return tuple(outcomes)
    finally:
        _clear(store)
        if already is not None:
            _remove_folders(Path(top), already)


def _tried(promise: Promise, store: ObjectStore) -> Outcome:
    started_s, detail = time.monotonic(), ""
    try:
        promise.check(store)
    except (BrokenPromise, StorageError) as exc:
        detail = str(exc)
    seconds = time.monotonic() - started_s
    with suppress(StorageError):  # what is left is cleared at the end, and an error is then told
        _clear(store)
    return Outcome(promise.name, promise.says, not detail, detail, seconds)


# The promises


def _check_whole(store: ObjectStore) -> None:
    for name, data in (("a/b.json", b"0123456789"), ("empty", b""), ("bytes", bytes(range(256)))):
        _expect(store.put_if_absent(name, data), f"{name} could not be written to an empty place")
        _same(store.read(name), data, f"reading {name}")
        info = store.stat(name)
        _expect((info.name, info.size_bytes) == (name, len(data)), f"{name} is described as {info}")
        (listed,) = store.list(name)
        same = (listed.name, listed.size_bytes, listed.etag) == (info.name, info.size_bytes, info.etag)
        _expect(same, f"{name} is listed otherwise than it is described")
        _expect(abs(listed.modified_s - info.modified_s) < 2, f"{name} is listed with another time")

    store.put("empty", b"no more")
    _same(store.read("empty"), b"no more", "reading what was overwritten")
    _expect(store.stat("empty").etag != "", "an object has no ETag")
    _expect(_is_missing(lambda: store.read("nothing")), "reading what isn't there gave no error")
    _expect(_is_missing(lambda: store.stat("nothing")), "describing what isn't there gave no error")


def _check_streams(store: ObjectStore) -> None:
    with store.open_write("data/a.tar") as target:
        target.write(b"abc")
        _expect(_names(store) == [], "a stream that is still written can be seen")
        target.write(bytearray(b"def"))
    _same(store.read("data/a.tar"), b"abcdef", "reading a stream's object")

    with suppress(InterruptedError), store.open_write("data/b.tar") as target:
        target.write(b"abc" * 1000)
        raise InterruptedError
    _expect(_names(store) == ["data/a.tar"], "a stream that failed left an object")


def _check_ranges(store: ObjectStore) -> None:
    data = random.Random(0).randbytes(300_000)
    store.put("data", data)
    for start, size in ((0, 10), (3, 4), (299_995, 100), (100_000, 123_456), (300_000, 5), (400_000, 3)):
        _same(store.read("data", start, size), data[start : start + size], f"{size} bytes from {start}")
    _same(store.read("data", 299_000), data[299_000:], "from 299000 to the end")
    _same(store.read("data", 5, 0), b"", "no bytes from 5")

    with store.open_read("data") as stream:
        for position in (0, 200_000, 10, 150_000, 299_997):
            stream.seek(position)
            _same(stream.read(7), data[position : position + 7], f"7 bytes at {position} of a stream")


def _check_large(store: ObjectStore) -> None:
    data = random.Random(1).randbytes(LARGE_BYTES)
    with store.open_write("large.tar") as target:
        for start in range(0, len(data), 700_001):
            target.write(data[start : start + 700_001])
    _expect(store.stat("large.tar").size_bytes == len(data), "an object written in parts has another size")
    with store.open_read("large.tar") as stream:
        digest = hashlib.sha256(stream.read()).digest()
    _expect(digest == hashlib.sha256(data).digest(), "an object written in parts has other bytes")
    for start in ((16 << 20) - 5, (32 << 20) - 5, len(data) - 5):
        _same(store.read("large.tar", start, 10), data[start : start + 10], f"10 bytes from {start}")


def _check_unfinished(store: ObjectStore) -> None:
    writing = store.open_write("data/large.tar")
    target = writing.__enter__()
    try:
        target.write(bytes(LARGE_BYTES))
        found = list(store.unfinished("data/"))
        _expect(len(found) == 1, f"of one unfinished write {len(found)} are listed")
        _expect(list(store.unfinished("other/")) == [], "an unfinished write is listed under another prefix")
        store.abandon(found[0])
        store.abandon(found[0])
        _expect(list(store.unfinished()) == [], "a write that was given up is still listed")
    finally:
        with suppress(StorageError, InterruptedError):
            writing.__exit__(InterruptedError, InterruptedError(), None)
    _expect(_names(store) == [], "a write that was given up left an object")


def _check_first_wins(store: ObjectStore) -> None:
    _expect(store.put_if_absent("x", b"first"), "the first writer of a name lost")
    _expect(not store.put_if_absent("x", b"second"), "the second writer of a name won too")
    _same(store.read("x"), b"first", "reading what the first writer wrote")
    _expect(store.put_if_absent("x", b"first"), "a retry of one's own write is no success")


def _check_race(store: ObjectStore) -> None:
    for number in range(NUM_RACES):
        name = f"commits/{number:06d}.json"
        size_bytes = 500 if number % 2 else 300_000
        barrier = threading.Barrier(NUM_WRITERS)

        def write(
            writer: int, name: str = name, size_bytes: int = size_bytes, barrier: threading.Barrier = barrier
        ) -> bool:
            """One of the writers, started with the others."""
            barrier.wait()
            return store.put_if_absent(name, f"writer {writer} ".encode().ljust(size_bytes))

        with ThreadPoolExecutor(NUM_WRITERS) as pool:
            won = list(pool.map(write, range(NUM_WRITERS)))
        _expect(won.count(True) == 1, f"of {NUM_WRITERS} writers of one name {won.count(True)} won")
        there = store.read(name)[:9].rstrip()
        _expect(there == f"writer {won.index(True)}".encode(), "a loser's bytes are there, not the winner's")


def _check_listing(store: ObjectStore) -> None:
    names = [f"commits/{number:06d}.json" for number in range(NUM_LISTED)] + ["a", "commits0", "z"]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda name: store.put(name, name.encode()), names))
    _expect(_names(store) == sorted(names), f"a listing of {len(names)} names is not complete and sorted")
    _expect(len(_names(store, "commits/")) == NUM_LISTED, "a listing below a prefix is not complete")
    _expect(len(_names(store, "commits/0010")) == 100, "a listing of what begins with a word is not complete")
    _expect(_names(store, "nothing/") == [], "a listing of nothing has names")
    _expect(store.folders() == ("commits",), f"the folders are {store.folders()}")


def _check_order(store: ObjectStore) -> None:
    names = ["a/x", "a.b", "a-b", "a/b/c", "a0", "b", "ab/c", "a/\u00e9", "a/\U0001f600"]
    for name in names:
        store.put(name, b"")
    _expect(_names(store) == sorted(names, key=str.encode), f"names are listed as {_names(store)}")
    _expect(_names(store, "a/b") == ["a/b/c"], "a prefix within a name gives others")
    _expect(store.folders("a/") == ("b",) and store.folders() == ("a", "ab"), "folders are listed otherwise")


def _check_odd_names(store: ObjectStore) -> None:
    for name in ODD_NAMES:
        _expect(store.put_if_absent(name, name.encode()), f"{name!r} was there in an empty place")
        _same(store.read(name), name.encode(), f"reading {name!r}")
        _expect(_names(store, name) == [name], f"{name!r} is listed as {_names(store, name)}")
    _expect(sorted(_names(store)) == sorted(ODD_NAMES), "odd names are not all listed")

    for name in ("../x", "a/../../x", "/etc/x", "a//b", "", "a/", "./a", f"{TEMP_PREFIX}1", "a\0b"):
        with suppress(InputError):
            store.put_if_absent(name, b"")
            raise BrokenPromise(f"{name!r} was taken for a name")


def _check_deletion(store: ObjectStore) -> None:
    for name in ("a/1", "a/2", "b"):
        store.put(name, b"data")
    store.delete("a/1")
    store.delete("a/1")
    _expect(_is_missing(lambda: store.read("a/1")), "what was deleted can be read")
    _expect(_is_missing(lambda: store.stat("a/1")), "what was deleted is described")
    _expect(_names(store) == ["a/2", "b"], f"after a deletion {_names(store)} are listed")
    _expect(store.put_if_absent("a/1", b"again"), "a deleted name cannot be written again")


def _check_times(store: ObjectStore) -> None:
    store.put("first", b"1")
    time.sleep(1.1)
    store.put("second", b"2")
    first_s, second_s = (store.stat(name).modified_s for name in ("first", "second"))
    _expect(0.0 < second_s - first_s < MAX_CLOCK_S, f"a second write is {second_s - first_s:.1f} s younger")
    store.put("first", b"3")
    _expect(store.stat("first").modified_s >= second_s, "an overwritten object keeps its old time")


PROMISES: tuple[Promise, ...] = (
    Promise("write and read", "what is put is read, listed and described, at once", _check_whole),
    Promise("streams", "a stream's object appears whole at its end, or not at all", _check_streams),
    Promise("ranged read", "any range of bytes can be read, also past the end", _check_ranges),
    Promise("multipart", "a large object is written in parts and comes back the same", _check_large),
    Promise("unfinished", "writes that never ended are listed and can be given up", _check_unfinished),
    Promise("first wins", "the second writer of a name loses (If-None-Match on S3)", _check_first_wins),
    Promise("race", "of several writers of one name at once exactly one wins", _check_race),
    Promise("listing", "a long listing is complete, over all pages", _check_listing),
    Promise("order", "names are listed in the order of their bytes, folders apart", _check_order),
    Promise("odd names", "spaces, brackets, %, emoji and long names are names", _check_odd_names),
    Promise("deletion", "what is deleted is gone at once; deleting it again is no error", _check_deletion),
    Promise("times", "the store's own times tell which write was later", _check_times),
)
"""All promises; a place where they hold can keep a dataset."""


# Their tools


def _expect(kept: bool, otherwise: str) -> None:
    if not kept:
        raise BrokenPromise(otherwise)


def _same(found: bytes, wanted: bytes, what: str) -> None:
    if found != wanted:
        raise BrokenPromise(f"{what} gave {len(found)} bytes, not the {len(wanted)} that belong there")


def _is_missing(look: Callable[[], object]) -> bool:
    try:
        look()
    except ObjectNotFound:
        return True
    return False


def _names(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.name for info in store.list(prefix)]


# Leaving nothing behind


def _clear(store: ObjectStore) -> None:
    """Removes every object and unfinished write below a store's root. Raises StorageError."""
    for write in list(store.unfinished()):
        store.abandon(write)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(store.delete, _names(store)))


def _nearest_folder(root: str) -> Path | None:
    """The folder on this machine that is there already, at or above `root`; None of a remote root."""
    if is_remote(root):
        return None
    return next(path for path in _and_parents(Path(absolute_address(root))) if os.path.isdir(path))  # noqa: PTH112 - one that may not be looked at is none


def _remove_folders(top: Path, keep: Path) -> None:
    """Empty folders below and above `top`, up to `keep`."""
    below: Sequence[Path] = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
    above = [path for path in _and_parents(top) if path != keep and keep in path.parents]
    for folder in (*below, *above):
        with suppress(OSError):  # somebody else's file is in it, or it is gone
            folder.rmdir()


def _and_parents(path: Path) -> Iterator[Path]:
    yield path
    yield from path.parents
