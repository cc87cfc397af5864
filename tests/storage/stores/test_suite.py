"""Every promise of a store, on a folder and on S3's API; and a probe that leaves nothing behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maskmill.storage.errors import AccessDenied, BucketNotFound, InputError
from maskmill.storage.stores import suite
from maskmill.storage.stores.base import ObjectInfo, ObjectStore
from maskmill.storage.stores.local import LocalStore
from maskmill.storage.stores.open import open_store
from maskmill.storage.stores.suite import PROMISES, BrokenPromise, Promise, probe
from tests.storage.stores.test_stores import open_to_all, run_as_nobody

every_promise = pytest.mark.parametrize("promise", PROMISES, ids=[one.name for one in PROMISES])
MOTO_BREAKS = {"race", "times"}  # it doesn't decide concurrent PUTs, and keeps whole seconds of another clock


@every_promise
def test_a_folder_keeps_it(promise: Promise, local_store: ObjectStore) -> None:
    promise.check(local_store)


@every_promise
def test_the_s3_api_keeps_it(promise: Promise, s3_bucket: str) -> None:
    if promise.name not in MOTO_BREAKS:
        promise.check(open_store(f"{s3_bucket}/data/set"))


@dataclasses.dataclass(frozen=True)
class Broken(LocalStore):
    """A folder that breaks one promise."""

    how: str = ""

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        data = super().read(name, start, size)
        return data[:-1] if self.how == "short reads" else data

    def put_if_absent(self, name: str, data: bytes) -> bool:
        won = super().put_if_absent(name, data)
        return won or (self.how == "all win")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = list(super().list(prefix))
        if self.how == "one page":
            found = found[:1000]
        if self.how == "any order":
            found.reverse()
        yield from found

    def delete(self, name: str) -> None:
        if self.how != "keeps what is deleted":
            super().delete(name)

    def put(self, name: str, data: bytes) -> None:
        if self.how == "stale" and Path(self.root, name).exists():
            return
        super().put(name, data)


@pytest.mark.parametrize(
    ("how", "broken"),
    [
        ("short reads", {"write and read", "streams", "ranged read", "multipart", "odd names", "first wins"}),
        ("all win", {"first wins", "race"}),
        ("one page", {"listing"}),
        ("any order", {"listing", "order", "deletion"}),
        ("keeps what is deleted", {"deletion"}),
        ("stale", {"write and read", "times"}),
    ],
)
def test_a_store_that_breaks_a_promise_is_found_out(how: str, broken: set[str], tmp_path: Path) -> None:
    found = set()
    for promise in PROMISES:
        if promise.name == "listing" and "listing" not in broken:
            continue  # 1,100 puts: a whole folder keeps it above
        try:
            promise.check(Broken(str(tmp_path / promise.name), how))
        except BrokenPromise:
            found.add(promise.name)
    assert found >= broken
    assert found <= broken | {"race", "multipart"}


def test_a_probe_tells_every_promise_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    told: list[str] = []
    outcomes = probe(str(tmp_path / "new" / "place"), tell=told.append)
    assert told == [promise.name for promise in PROMISES] == [one.name for one in outcomes]
    assert all(one.kept and one.detail == "" and one.seconds > 0 for one in outcomes)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine.txt"]


def test_a_probe_of_a_bucket_leaves_what_was_there(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others = tuple(one for one in PROMISES if one.name != "listing")  # 1,100 puts: tried by themselves above
    monkeypatch.setattr(suite, "PROMISES", others)
    mine = open_store(f"{s3_bucket}/data")
    mine.put("mine.txt", b"mine")
    outcomes = {one.name: one for one in probe(mine.root)}
    assert {name for name, one in outcomes.items() if not one.kept} <= MOTO_BREAKS
    assert [info.name for info in open_store(s3_bucket).list()] == ["data/mine.txt"]
    assert list(open_store(s3_bucket).unfinished()) == []


def test_a_broken_promise_is_told_and_the_next_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(root: str) -> ObjectStore:
        return Broken(root, "all win")

    monkeypatch.setattr(suite, "open_store", broken)
    outcomes = {one.name: one for one in probe(str(tmp_path))}
    assert {name for name, one in outcomes.items() if not one.kept} == {"first wins", "race"}
    assert outcomes["first wins"].detail == "the second writer of a name won too"
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(store: ObjectStore) -> None:
        store.put("x", b"1")
        raise KeyboardInterrupt

    check: Callable[[ObjectStore], None] = interrupted
    monkeypatch.setattr(suite, "PROMISES", (Promise("one", "", check),))
    with pytest.raises(KeyboardInterrupt):
        probe(str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_the_reason_is_told(s3_bucket: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use a local path or s3://bucket/prefix"):
        probe("gs://bucket/x")
    with pytest.raises(BucketNotFound):
        probe(f"{s3_bucket}-not-there/x")
    open_to_all(tmp_path)
    done = run_as_nobody(
        "from maskmill.storage.stores.suite import probe\n"
        "from maskmill.storage.errors import AccessDenied\n"
        "try:\n probe(sys.argv[1])\nexcept AccessDenied as exc:\n print(exc)",
        str(tmp_path / "place"),
    )
    assert AccessDenied.__name__ not in done.stderr
    assert "give this user access" in done.stdout, done.stderr
