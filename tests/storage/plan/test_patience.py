"""Reads that hang end in an error of their own, and a dead mount is told soon."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskmill.storage.errors import NotAFile, ObjectNotFound, SourceSilent, SourceTooLarge
from maskmill.storage.plan import patience
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.patience import open_patiently, within
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.plan.sources import read_source, read_sources
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.local import LocalStore


@pytest.fixture
def dead() -> Iterator[threading.Event]:
    """A mount that answers once the event is set."""
    event = threading.Event()
    yield event
    event.set()
    for thread in list(patience._hanging.values()):
        thread.join()
    patience._hanging.clear()


def test_what_is_read_in_time_is_given_with_its_errors() -> None:
    assert within("/photos/a.jpg", lambda: b"1") == b"1"
    with pytest.raises(ObjectNotFound, match="gone"):
        within("/photos/a.jpg", lambda: (_ for _ in ()).throw(ObjectNotFound("gone")))


def test_a_read_that_hangs_is_told_and_its_folder_known(dead: threading.Event) -> None:
    started_s = time.monotonic()
    with pytest.raises(SourceSilent, match=r"/mnt/a\.jpg: gave nothing for 0\.2 s"):
        within("/mnt/a.jpg", dead.wait, deadline_s=0.2)
    with pytest.raises(SourceSilent, match="for 1 s"):
        within("/mnt/b.jpg", dead.wait)
    assert time.monotonic() - started_s < 10
    assert within("/other/c.jpg", lambda: 7) == 7

    dead.set()
    patience._hanging["/mnt"].join()
    assert within("/mnt/b.jpg", lambda: 8) == 8
    assert patience._hanging == {}, "a mount that came back is trusted again"


def test_a_remote_store_keeps_its_own_time(dead: threading.Event) -> None:
    caller = within("s3://bucket/a.jpg", threading.current_thread, deadline_s=0.0)
    assert caller is threading.current_thread()


class Hanging(io.BytesIO):
    """A file that gives ten bytes and then nothing."""

    def __init__(self, answers: threading.Event) -> None:
        super().__init__(bytes(range(10)))
        self.answers = answers

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size) or bytes(self.answers.wait() and 0)


def test_a_stream_that_stops_in_the_middle_is_told(
    dead: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "DEADLINE_S", 0.2)
    monkeypatch.setattr(LocalStore, "open_read", lambda *arguments: Hanging(dead))
    with open_patiently("/mnt/a.tar") as stream:
        assert stream.read(10) == bytes(range(10))
        with pytest.raises(SourceSilent, match=r"/mnt/a\.tar"):
            stream.read(1)


def test_a_stream_is_as_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(range(256)) * 4000)
    with open_patiently(str(tmp_path / "a.tar")) as stream:
        for position in (100, 700_000, 3):
            assert stream.seek(position) == position
            assert stream.read(300) == (bytes(range(256)) * 4000)[position : position + 300]
    with open_patiently(str(tmp_path / "a.tar"), 256, 1000) as stream:
        assert stream.read() == (bytes(range(256)) * 4)[:1000]


def test_a_source_that_became_a_pipe_is_not_waited_for(tmp_path: Path, local_store: ObjectStore) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(b"picture %d" % number)
    make_plan(local_store, [str(photos)], shard_size=4)
    images = load_plans(local_store).images(0)
    (photos / "1.jpg").unlink()
    os.mkfifo(photos / "1.jpg")

    with pytest.raises(NotAFile, match="a pipe or device, not a file"):
        read_source(images[1])
    found = list(read_sources(images))
    assert [type(one.error) for one in found] == [type(None), NotAFile, type(None)]


def test_no_byte_is_read_of_a_source_that_is_too_large(tmp_path: Path, local_store: ObjectStore) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(bytes(99))
    (photos / "b.jpg").write_bytes(bytes(100))
    make_plan(local_store, [str(photos)], shard_size=4)
    images = load_plans(local_store).images(0)
    (photos / "b.jpg").unlink()  # reading it would say so
    assert len(read_source(images[0], max_bytes=99)) == 99
    with pytest.raises(SourceTooLarge, match=r"b\.jpg: 100 bytes, more than the 99"):
        read_source(images[1], max_bytes=99)
    assert [type(one.error) for one in read_sources(images, 99)] == [type(None), SourceTooLarge]
