from __future__ import annotations

import gc
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskmill.storage.errors import DamagedObject, ObjectNotFound, OutOfSpace
from maskmill.storage.shards.shards import (
    Sample,
    WrittenObject,
    check_object,
    check_size,
    read_shard,
    write_shard,
)
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store

SAMPLES = [Sample(f"{number:09d}", {"jpg": bytes([number]) * 1000, "json": b"{}"}) for number in range(5)]

_TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\0/")
_KEYS = st.text(_TEXT.filter(lambda mark: mark != "."), min_size=1).filter(lambda key: key[0] != "_")
_ENDINGS = st.text(_TEXT, min_size=1).filter(lambda text: text[0] not in "._" and text == text.lower())


@pytest.fixture
def written(store: ObjectStore) -> WrittenObject:
    return write_shard(store, "data/0.tar", SAMPLES)


def test_a_shard_round_trips(store: ObjectStore, written: WrittenObject) -> None:
    assert list(read_shard(store, written)) == SAMPLES
    assert (written.name, written.num_samples) == ("data/0.tar", 5)
    check_object(store, written)
    check_size(store, written)


def test_equal_samples_make_equal_bytes(store: ObjectStore, written: WrittenObject) -> None:
    backwards = [Sample(sample.key, dict(reversed(sample.files.items()))) for sample in SAMPLES]
    again = write_shard(store, "data/1.tar", backwards)
    assert again.sha256 == written.sha256


def test_an_empty_shard_is_a_shard(store: ObjectStore) -> None:
    assert list(read_shard(store, write_shard(store, "data/0.tar", []))) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        _KEYS, st.dictionaries(_ENDINGS, st.binary(max_size=600), min_size=1, max_size=3), max_size=6
    )
)
def test_odd_keys_and_endings_round_trip(
    local_store: ObjectStore, content: dict[str, dict[str, bytes]]
) -> None:
    samples = [Sample(key, files) for key, files in content.items()]
    written = write_shard(local_store, "data/odd.tar", samples)
    assert list(read_shard(local_store, written)) == samples


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its file open
def test_webdataset_reads_what_we_write(local_store: ObjectStore, written_locally: WrittenObject) -> None:
    import webdataset

    path = Path(local_store.root, written_locally.name)
    found = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
    gc.collect()
    assert [(one["__key__"], one["jpg"], one["json"]) for one in found] == [
        (sample.key, sample.files["jpg"], sample.files["json"]) for sample in SAMPLES
    ]


@pytest.fixture
def written_locally(local_store: ObjectStore) -> WrittenObject:
    return write_shard(local_store, "data/0.tar", SAMPLES)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "_a", "a\0"])
def test_keys_that_would_be_read_otherwise_are_refused(local_store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a sample's key"):
        write_shard(local_store, "data/0.tar", [Sample(key, {"jpg": b""})])
    assert list(local_store.list()) == []


@pytest.mark.parametrize("files", [{}, {"JPG": b""}, {".jpg": b""}, {"": b""}, {"_x": b""}, {"a/b": b""}])
def test_endings_that_would_be_read_otherwise_are_refused(
    local_store: ObjectStore, files: dict[str, bytes]
) -> None:
    with pytest.raises(ValueError, match=r"ending|no files"):
        write_shard(local_store, "data/0.tar", [Sample("a", files)])


def test_a_key_twice_is_refused(local_store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="'a' twice"):
        write_shard(local_store, "data/0.tar", [Sample("a", {"jpg": b"1"}), Sample("a", {"json": b"2"})])


def test_a_failing_source_publishes_nothing(store: ObjectStore) -> None:
    def samples() -> Iterator[Sample]:
        yield SAMPLES[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_shard(store, "data/0.tar", samples())
    assert list(store.list()) == []


def test_a_full_disk_publishes_nothing(tiny_disk: Path) -> None:
    store = open_store(tiny_disk / "dataset")
    with pytest.raises(OutOfSpace, match="free some space"):
        write_shard(store, "data/0.tar", [Sample(str(index), {"jpg": bytes(300_000)}) for index in range(9)])
    assert list(store.list()) == []


def damage(store: ObjectStore, written: WrittenObject, data: bytes) -> WrittenObject:
    """Puts other bytes under the name, and a record that would pass a check of size."""
    store.put(written.name, data)
    return replace(written, size_bytes=len(data))


def test_a_cut_between_members_is_found(store: ObjectStore, written: WrittenObject) -> None:
    data = store.read(written.name)
    cut = damage(store, written, data[: 3 * (512 + 1024 + 512 + 512)])
    with pytest.raises(DamagedObject, match="without an end marker"):
        list(read_shard(store, cut))


def test_every_single_flipped_block_is_found(
    local_store: ObjectStore, written_locally: WrittenObject
) -> None:
    data = local_store.read(written_locally.name)
    for position in range(0, len(data), 512):
        flipped = bytearray(data)
        flipped[position] ^= 0xFF
        local_store.put(written_locally.name, bytes(flipped))
        with pytest.raises(DamagedObject):
            list(read_shard(local_store, written_locally))
        with pytest.raises(DamagedObject):
            check_object(local_store, written_locally)


def test_another_size_is_found_before_reading(store: ObjectStore, written: WrittenObject) -> None:
    store.put(written.name, store.read(written.name)[:-1])
    with pytest.raises(DamagedObject, match="its record says"):
        check_size(store, written)
    with pytest.raises(DamagedObject, match="its record says"):
        next(read_shard(store, written))


def test_what_is_no_tar_is_found(store: ObjectStore, written: WrittenObject) -> None:
    with pytest.raises(DamagedObject):
        list(read_shard(store, damage(store, written, b"no tar at all" * 1000)))


def test_a_wrong_count_is_found(store: ObjectStore, written: WrittenObject) -> None:
    with pytest.raises(DamagedObject, match="5 samples"):
        list(read_shard(store, replace(written, num_samples=6)))


def test_a_missing_shard_is_told(store: ObjectStore, written: WrittenObject) -> None:
    store.delete(written.name)
    with pytest.raises(ObjectNotFound):
        list(read_shard(store, written))


def test_a_link_in_a_tar_is_damage(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    written = WrittenObject("a.tar", (tmp_path / "a.tar").stat().st_size, "", 1)
    with pytest.raises(DamagedObject):
        list(read_shard(store, written))
