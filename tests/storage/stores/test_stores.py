from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maskmill.storage.errors import (
    AccessDenied,
    BucketNotFound,
    InputError,
    NotAFile,
    ObjectNotFound,
    OutOfSpace,
    StorageError,
    StoreUnavailable,
)
from maskmill.storage.stores.base import ObjectStore, join_address
from maskmill.storage.stores.open import address_store, open_store
from maskmill.storage.stores.promise import PROMISE, ensure_writable


def names(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.name for info in store.list(prefix)]


def test_what_is_put_is_read(store: ObjectStore) -> None:
    assert store.put_if_absent("a/b.json", b"0123456789")
    assert store.read("a/b.json") == b"0123456789"
    assert store.read("a/b.json", 3, 4) == b"3456"
    assert store.read("a/b.json", 8, 100) == b"89"
    assert store.read("a/b.json", 10) == b""
    assert store.read("a/b.json", 50, 3) == b""
    assert store.read("a/b.json", 0, 0) == b""
    with pytest.raises(ObjectNotFound):
        store.read("nothing", 0, 0)
    info = store.stat("a/b.json")
    assert (info.name, info.size_bytes) == ("a/b.json", 10)
    assert info == next(iter(store.list("a/")))


def test_the_first_writer_wins(store: ObjectStore) -> None:
    assert store.put_if_absent("x", b"first")
    assert not store.put_if_absent("x", b"second")
    assert store.put_if_absent("x", b"first"), "a retry of one's own write is a success"
    assert store.read("x") == b"first"


def test_put_overwrites_and_delete_is_quiet(store: ObjectStore) -> None:
    store.put("beat", b"1")
    store.put("beat", b"22")
    assert store.read("beat") == b"22"
    store.delete("beat")
    store.delete("beat")
    with pytest.raises(ObjectNotFound, match="beat"):
        store.read("beat")
    with pytest.raises(ObjectNotFound):
        store.stat("beat")
    with pytest.raises(ObjectNotFound):
        store.open_read("beat").read()


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    with store.open_write("empty"):
        pass
    assert store.read("empty") == b""
    assert store.stat("empty").size_bytes == 0


def test_listing_is_sorted_by_full_name_and_takes_any_prefix(store: ObjectStore) -> None:
    written = ["a/x", "a.b", "a-b", "a/b/c", "a0", "b", "ab/c", "a/\u00e9", "a/\U0001f600"]
    for name in written:
        store.put_if_absent(name, name.encode())
    assert names(store) == sorted(written, key=str.encode)
    assert names(store, "a/") == ["a/b/c", "a/x", "a/\u00e9", "a/\U0001f600"]
    assert names(store, "a") == [name for name in names(store) if name.startswith("a")]
    assert names(store, "a/b") == ["a/b/c"]
    assert names(store, "zzz/") == []


def test_a_stream_is_published_whole(store: ObjectStore) -> None:
    with store.open_write("data/a.tar") as target:
        target.write(b"abc")
        assert names(store) == [], "nothing before the end"
        target.write(bytearray(b"def"))
    assert store.read("data/a.tar") == b"abcdef"
    with store.open_read("data/a.tar", 1, 4) as source:
        assert (source.read(2), source.read(), source.read()) == (b"bc", b"de", b"")


def test_an_exception_leaves_nothing(store: ObjectStore, root: str) -> None:
    with pytest.raises(ZeroDivisionError), store.open_write("data/a.tar") as target:
        target.write(b"abc" * 1000)
        raise ZeroDivisionError
    assert names(store) == []
    if not root.startswith("s3://"):
        assert [path for path in Path(root).rglob("*") if path.is_file()] == []


def test_streams_seek(store: ObjectStore) -> None:
    data = bytes(range(256)) * 20_000
    with store.open_write("big") as target:
        target.write(data)
    with store.open_read("big") as source:
        for position in (0, 5_000_000, 10, 4_000_000, 4_000_100, len(data) - 3):
            source.seek(position)
            assert source.read(7) == data[position : position + 7]
            assert source.tell() == min(len(data), position + 7)


def test_a_name_cannot_leave_the_root(store: ObjectStore) -> None:
    for name in ("../x", "a/../../x", "/etc/x", "a//b", "", "a/", "./a", ".tmp-1", "a\0b"):
        with pytest.raises(InputError):
            store.put_if_absent(name, b"")


def test_stores_travel_between_processes(store: ObjectStore) -> None:
    store.put_if_absent("x", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read("x") == b"1"


def test_an_address_gives_its_object(store: ObjectStore) -> None:
    store.put_if_absent("a/b c#?.jpg", b"1")
    found, name = address_store(join_address(store.root, "a/b c#?.jpg"))
    assert found.read(name) == b"1"


def test_the_probe_leaves_its_result_alone(store: ObjectStore) -> None:
    ensure_writable(store)
    assert names(store) == [PROMISE]


@pytest.mark.parametrize("address", ["gs://b/x", "http://h/x", "", "s3://"])
def test_unknown_roots_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="s3://bucket/prefix"):
        open_store(address)


@pytest.mark.parametrize("address", ["relative.jpg", "s3://bucket", "s3://bucket/", "/folder/"])
def test_addresses_without_an_object_are_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"object|one file"):
        address_store(address)


def test_file_addresses_hold_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9 100%.jpg")
    path.write_bytes(b"1")
    store, name = address_store(path.as_uri())
    assert store.read(name) == b"1"


# Local folders


def test_many_local_writers_have_one_winner(local_store: ObjectStore) -> None:
    for round_number in range(20):
        barrier = threading.Barrier(12)

        def write(
            writer: int, name: str = f"r{round_number}/x", barrier: threading.Barrier = barrier
        ) -> bool:
            barrier.wait()
            return local_store.put_if_absent(name, f"writer {writer}".encode())

        with ThreadPoolExecutor(12) as pool:
            won = list(pool.map(write, range(12)))
        assert won.count(True) == 1
        assert local_store.read(f"r{round_number}/x") == f"writer {won.index(True)}".encode()


def test_a_folder_is_no_object(local_store: ObjectStore) -> None:
    local_store.put_if_absent("a/b", b"")
    for call in (local_store.stat, local_store.read):
        with pytest.raises(ObjectNotFound):
            call("a")
    with pytest.raises(StorageError):
        local_store.put_if_absent("a/b/c", b"")


def test_a_full_disk_says_which_and_what_to_do(tiny_disk: Path) -> None:
    store = open_store(tiny_disk / "dataset")
    assert store.put_if_absent("commits/a.json", b"kept")
    told = r"disk that holds .*tiny.* free some space.* same command"
    with pytest.raises(OutOfSpace, match=told), store.open_write("data/a.tar") as target:
        for _ in range(100):
            target.write(b"x" * 100_000)
    assert names(store) == ["commits/a.json"]
    ensure_writable(store)  # the half-written file is gone, so there is room again
    (tiny_disk / "ballast").write_bytes(b"x" * (900 * 1024))
    with pytest.raises(OutOfSpace):
        store.put_if_absent("big", b"x" * 300_000)
    assert names(store) == ["commits/a.json", PROMISE]


def run_as_nobody(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as another user, since root may read and write everything."""
    if os.geteuid() != 0:
        pytest.skip("changing the user needs root")
    program = (
        "import os, sys; sys.path[:0] = sys.argv.pop().split(os.pathsep)\n"
        "from maskmill.storage.stores import local, s3, suite\n"
        "from maskmill.storage.plan import examine, make_plan\n"
        "os.setgid(65534); os.setuid(65534)\n" + code
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", program, *arguments, path]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def open_to_all(folder: Path) -> None:
    """Lets other users into a test's folder; pytest's own ones are private."""
    while not folder.stat().st_mode & 0o001:
        folder.chmod(0o755)
        folder = folder.parent


def test_a_read_only_place_is_refused_before_work(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    code = (
        "from maskmill.storage.stores.open import open_store\n"
        "from maskmill.storage.stores.promise import ensure_writable\n"
        "from maskmill.storage.errors import AccessDenied\n"
        "try:\n ensure_writable(open_store(sys.argv[1]))\n"
        "except AccessDenied as exc:\n print(exc)"
    )
    done = run_as_nobody(code, str(tmp_path / "dataset"))
    assert "Permission denied; give this user access or use another folder" in done.stdout, done.stderr
    assert str(tmp_path) in done.stdout


KILLED = """
import itertools, sys
from maskmill.storage.stores.open import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
for number in itertools.count():
    with store.open_write(f"data/{sys.argv[2]}-{number}") as target:
        for _ in range(20):
            target.write(b"x" * 10_000)
    store.put_if_absent(f"commits/{sys.argv[2]}-{number}", b"y" * 100_000)
"""


def test_a_killed_writer_leaves_only_whole_objects(local_store: ObjectStore) -> None:
    for round_number in range(4):
        command = [sys.executable, "-c", KILLED, local_store.root, str(round_number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.05 + 0.04 * round_number)
            writer.kill()
    written = list(local_store.list())
    assert {info.size_bytes for info in written if info.name.startswith("data/")} == {200_000}
    assert {info.size_bytes for info in written if info.name.startswith("commits/")} <= {100_000}


# S3's own errors


def test_a_missing_bucket_is_named(s3_bucket: str) -> None:
    store = open_store(f"{s3_bucket}-not-there/data")
    with pytest.raises(BucketNotFound, match="not-there"):
        ensure_writable(store)
    with pytest.raises(BucketNotFound):
        list(store.list())


def test_no_credentials_are_told_without_showing_any(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
        ensure_writable(open_store(f"{s3_bucket}/x"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAVERYSECRET")
    with pytest.raises(AccessDenied) as caught:
        ensure_writable(open_store(f"{s3_bucket}/x"))
    assert "AKIAVERYSECRET" not in str(caught.value)


def test_an_unreachable_store_is_told(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # botocore's pauses between attempts
    with pytest.raises(StoreUnavailable, match="check the endpoint and network"):
        open_store(f"{s3_bucket}/x").read("a")


def test_a_multipart_upload_that_fails_is_aborted(s3_bucket: str) -> None:
    import boto3

    store = open_store(f"{s3_bucket}/x")
    with pytest.raises(ZeroDivisionError), store.open_write("big") as target:
        target.write(bytes(40 << 20))
        raise ZeroDivisionError
    client = boto3.session.Session().client("s3")
    assert "Uploads" not in client.list_multipart_uploads(Bucket=s3_bucket.removeprefix("s3://"))
    client.close()
    assert names(store) == []


def test_importing_storage_is_quick_and_takes_no_heavy_library() -> None:
    code = (
        "import sys\nfrom maskmill.storage.plan import make_plan\n"
        "from maskmill.storage.dataset import columns, generations\n"
        "from maskmill.storage.care import verify\nfrom maskmill.storage.drivers import lease\n"
        "heavy = {'torch', 'boto3', 'botocore', 'pyarrow', 'webdataset', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_folders_are_listed_without_what_is_in_them(store: ObjectStore) -> None:
    for name in ("a/x/1", "a/x/2", "a/y/1", "ab/z", "top"):
        store.put(name, b"")
    assert store.folders() == ("a", "ab")
    assert store.folders("a/") == ("x", "y")
    assert store.folders("a/x/") == store.folders("nothing/") == ()


def test_unfinished_writes_are_found_and_given_up(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskmill.storage.stores.s3_streams.PART_BYTES", 5 << 20)
    # moto answers a part of an upload that is gone with 500, so it is asked again and again; stores with 404
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *asked: 0.0)
    writing = store.open_write("data/big")
    file = writing.__enter__()
    file.write(bytes(6 << 20))
    (found,) = store.unfinished("data/")
    assert found.name.startswith("data/")
    assert abs(found.started_s - time.time()) < 60 or found.upload_id, "moto says 2010"
    assert list(store.unfinished("other/")) == []
    store.abandon(found)
    store.abandon(found)
    assert list(store.unfinished()) == []
    with pytest.raises(StorageError):
        writing.__exit__(None, None, None)
    assert list(store.list()) == []


@pytest.mark.parametrize("make", ["fifo", "socket", "link to a fifo"])
def test_only_plain_files_are_opened(make: str, local_store: ObjectStore, tmp_path: Path) -> None:
    local_store.put("a", b"1")
    path = Path(local_store.root, "b")
    if make == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.relpath(path))
    elif make == "fifo":
        os.mkfifo(path)
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    for read in (local_store.read, local_store.open_read):
        with pytest.raises(NotAFile, match=r"/b: a (pipe|socket)"):
            read("b")


def test_a_disk_without_inodes_is_told_apart_from_a_full_one(tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=12", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        store = open_store(folder / "dataset")
        with pytest.raises(OutOfSpace, match=r"no inode left .* too many files"):
            for number in range(20):
                store.put(f"{number}", b"1")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
