"""Which store an address belongs to, and that a new kind is a line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from maskmill.storage.errors import AccessDenied, DamagedObject, InputError, StoreUnavailable
from maskmill.storage.plan.inputs import list_inputs
from maskmill.storage.stores import open as stores
from maskmill.storage.stores.base import StoreKind
from maskmill.storage.stores.local import LocalStore
from maskmill.storage.stores.open import (
    absolute_address,
    address_beside,
    address_store,
    is_inside,
    is_remote,
    is_silence,
    open_store,
    split_bucket,
)


@pytest.mark.parametrize(
    ("folder", "entry", "wanted"),
    [
        ("/lists", "a.jpg", "/lists/a.jpg"),
        ("/lists", "../b/a.jpg", "/b/a.jpg"),
        ("/lists", "/c/a.jpg", "/c/a.jpg"),
        ("/lists", "file:///c/a%20b.jpg", "/c/a b.jpg"),
        ("/lists", "s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("s3://bucket/lists", "a.jpg", "s3://bucket/lists/a.jpg"),
        ("s3://bucket/lists", "../b/a.jpg", "s3://bucket/b/a.jpg"),
        ("s3://bucket", "a.jpg", "s3://bucket/a.jpg"),
        ("s3://bucket/lists", "file:///c/a.jpg", "/c/a.jpg"),
    ],
)
def test_an_entry_of_a_list_is_beside_it(folder: str, entry: str, wanted: str) -> None:
    assert address_beside(folder, entry) == wanted


def test_addresses_are_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute_address("data/") == str(tmp_path / "data")
    assert absolute_address("~/data") == "/home/me/data"
    assert absolute_address("s3://bucket/a/") == "s3://bucket/a"
    assert split_bucket("s3://bucket/a/b") == ("s3://bucket", "a/b")
    assert (is_remote("s3://b"), is_remote("/s3"), is_remote("file:///a"), is_remote("gs://b")) == (
        True,
        False,
        False,
        False,
    )


def test_what_lies_inside(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert is_inside(str(tmp_path / "link" / "a"), str(tmp_path / "set"))
    assert not is_inside(str(tmp_path / "sets"), str(tmp_path / "set"))
    assert is_inside("s3://b/set/a", "s3://b/set") and not is_inside("s3://b/sets", "s3://b/set")
    assert not is_inside("s3://b/set", "/b/set")


@pytest.mark.parametrize("kind", [StoreUnavailable, AccessDenied])
def test_silence_is_of_remote_stores_and_no_damage(kind: type[StoreUnavailable | AccessDenied]) -> None:
    assert is_silence("s3://bucket/set", kind("x"))
    assert not is_silence("/data/set", kind("x")), "a disk that fails a read is damage"
    assert not is_silence("s3://bucket/set", DamagedObject("x"))


def test_a_new_kind_of_store_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class CloudStore(LocalStore):
        """Buckets that are folders of this test."""

    def make(root: str) -> CloudStore:
        return CloudStore(os.fspath(tmp_path / root.removeprefix("gs://")))

    monkeypatch.setattr(stores, "KINDS", (*stores.KINDS, StoreKind("gs", "gs://bucket/prefix", make)))
    store = open_store("gs://bucket/set")
    store.put("a.jpg", b"1")
    found, name = address_store("gs://bucket/set/a.jpg")
    assert (type(found), found.read(name)) == (CloudStore, b"1")
    assert is_remote("gs://bucket/set")
    assert address_beside("gs://bucket/lists", "../set/a.jpg") == "gs://bucket/set/a.jpg"
    with pytest.raises(InputError, match="use a local path or s3://bucket/prefix or gs://bucket/prefix"):
        open_store("az://x")
    with pytest.raises(InputError, match="inside the dataset"):
        list_inputs(["gs://bucket/set/a.jpg"], dataset_root="gs://bucket/set")
