"""A local folder as an object store.

Read: plain files alone; a pipe or device is never waited for.
Written: a temporary beside the target, fsync, then `os.link` (first writer wins) or `os.replace` (own names),
then fsync of the folder. A killed writer leaves a `.tmp-*` file that no listing shows and nothing reads.

It does not know: file systems without hard links (vfat, some network mounts); the first write says so.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import unquote_to_bytes

from maskmill.storage.errors import (
    AccessDenied,
    InputError,
    NotAFile,
    ObjectNotFound,
    OutOfSpace,
    StorageError,
    StoreUnavailable,
)
from maskmill.storage.stores.base import TEMP_PREFIX, ObjectInfo, StoreKind, Unfinished, check_name

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class LocalStore:
    """An ObjectStore over a folder. `root` is absolute; the folder is made by the first write."""

    root: str

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        folder, _, _ = prefix.rpartition("/")
        for entry, name in _walk(self._path(folder), folder):
            if name.startswith(prefix):
                with suppress(FileNotFoundError):  # removed since: a driver's heartbeat, a loser's data
                    yield _info(name, entry.stat())

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """See `ObjectStore.folders`."""
        with suppress(ObjectNotFound), self._errors(prefix), os.scandir(self._path(prefix)) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.is_dir()))
        return ()

    def stat(self, name: str) -> ObjectInfo:
        """See `ObjectStore.stat`.

        Raises:
            ObjectNotFound: nothing is there, or a folder.
        """
        with self._errors(name):
            found = self._path(name).stat()
        if stat.S_ISDIR(found.st_mode):
            raise ObjectNotFound(f"{self._path(name)}: is a folder, not a file")
        return _info(name, found)

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See `ObjectStore.read`."""
        with self._errors(name), _open_plain(self._path(name)) as file:
            file.seek(start)
            return file.read(-1 if size is None else size)

    def open_read(self, name: str, start: int = 0, size: int | None = None) -> BinaryIO:
        """See `ObjectStore.open_read`."""
        with self._errors(name):
            file = _open_plain(self._path(name))
            file.seek(start)
        return file if size is None else cast(BinaryIO, io.BufferedReader(_Window(file, start, size)))

    @contextmanager
    def open_write(self, name: str) -> Iterator[BinaryIO]:
        """See `ObjectStore.open_write`."""
        path = self._path(check_name(name))
        with self._temporary(path) as (file, temp):
            yield file
            with self._errors(name):
                _sync(file)
                temp.replace(path)
                _sync_folder(path.parent)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See `ObjectStore.put_if_absent`.

        Raises:
            StorageError: a file system without hard links, or it cannot be written.
        """
        path = self._path(check_name(name))
        with self._temporary(path) as (file, temp), self._errors(name):
            file.write(data)
            _sync(file)
            try:
                os.link(temp, path)
            except FileExistsError:
                return path.read_bytes() == data
            except OSError as exc:
                if exc.errno in _NO_LINKS:
                    raise StorageError(
                        f"{self.root}: this file system has no hard links ({exc.strerror}), which commits "
                        "need; keep the dataset on another disk or on S3"
                    ) from exc
                raise
            _sync_folder(path.parent)
            return True

    def put(self, name: str, data: bytes) -> None:
        """See `ObjectStore.put`."""
        with self.open_write(name) as file, self._errors(name):
            file.write(data)

    def delete(self, name: str) -> None:
        """See `ObjectStore.delete`."""
        with self._errors(name), suppress(FileNotFoundError):
            self._path(check_name(name)).unlink()

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """See `ObjectStore.unfinished`."""
        top = self._path(prefix.rpartition("/")[0])
        for folder, _, names in os.walk(top):
            for temp in sorted(name for name in names if name.startswith(TEMP_PREFIX)):
                path = Path(folder, temp)
                name = path.relative_to(self.root).as_posix()
                with suppress(FileNotFoundError):  # ended since
                    found = path.stat()
                    if name.startswith(prefix):
                        yield Unfinished(name, "", found.st_size, found.st_mtime)

    def abandon(self, write: Unfinished) -> None:
        """See `ObjectStore.abandon`."""
        with self._errors(write.name), suppress(FileNotFoundError):
            self._path(write.name).unlink()

    def _path(self, name: str) -> Path:
        return Path(self.root, name)

    @contextmanager
    def _temporary(self, path: Path) -> Iterator[tuple[BinaryIO, Path]]:
        """A fresh file beside `path`, removed at the end if it still has its temporary name."""
        temp = path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")
        with self._errors(str(path)):
            _make_folders(path.parent)
            file = temp.open("xb")
        try:
            yield cast(BinaryIO, _OurErrors(file, self, str(path))), temp
        finally:
            with suppress(OSError):  # a full disk complains once more on close; the first error is on its way
                file.close()
            with suppress(FileNotFoundError):
                temp.unlink()

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._translated(name, exc) from exc

    def _translated(self, name: str, exc: OSError) -> StorageError:
        path = self._path(name)
        if exc.errno == errno.ENOSPC and _out_of_inodes(self.root):
            return OutOfSpace(
                f"no inode left on the disk that holds {self.root} ({_free_text(self.root)}): "
                f"it holds too many files, while writing {path}; remove some, "
                "then run the same command again: what is committed is kept"
            )
        if exc.errno in _NO_SPACE:
            return OutOfSpace(
                f"no space left on the disk that holds {self.root} ({_free_text(self.root)}) "
                f"while writing {path}; free some space, then run the same command again: "
                "what is committed is kept"
            )
        if isinstance(exc, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            return ObjectNotFound(f"{path}: {exc.strerror}")
        if isinstance(exc, PermissionError) or exc.errno == errno.EROFS:
            return AccessDenied(f"{path}: {exc.strerror}; give this user access or use another folder")
        return StoreUnavailable(f"{path}: {exc.strerror or exc}")


class _OurErrors(io.RawIOBase):
    """A file being written whose OSErrors become ours, so that a full disk says which disk and what to do."""

    def __init__(self, file: BinaryIO, store: LocalStore, path: str) -> None:
        self._file, self._store, self._target = file, store, path

    def writable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """See io.RawIOBase. Raises StorageError."""
        with self._store._errors(self._target):
            return self._file.write(data)

    def flush(self) -> None:
        """See io.IOBase. Raises StorageError."""
        if not self._file.closed:
            with self._store._errors(self._target):
                self._file.flush()

    def tell(self) -> int:
        """See io.IOBase."""
        return self._file.tell()

    def fileno(self) -> int:
        """See io.IOBase."""
        return self._file.fileno()


class _Window(io.RawIOBase):
    """The `size` bytes of a file from `start`."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._left = file, size
        self._file.seek(start)

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """See io.RawIOBase."""
        view = memoryview(buffer).cast("B")[: self._left]
        num = self._file.readinto(view)  # type: ignore[attr-defined]
        self._left -= num
        return int(num)

    def close(self) -> None:
        """See io.IOBase."""
        self._file.close()
        super().close()


def _walk(folder: Path, prefix: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Files under `folder`, in the order of their full names (a folder sorts as its name and '/')."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as exc:
        raise AccessDenied(f"{folder}: {exc.strerror}; give this user access") from exc
    entries = [entry for entry in entries if not entry.name.startswith(TEMP_PREFIX)]
    for entry in sorted(entries, key=lambda entry: entry.name + ("/" if entry.is_dir() else "")):
        name = f"{prefix}/{entry.name}" if prefix else entry.name
        if entry.is_dir():
            yield from _walk(folder / entry.name, name)
        else:
            yield entry, name


def local_path(address: str) -> str:
    """The path of a local address: itself, or what a file:// address percent-encodes."""
    if not address.startswith("file://"):
        return address
    return os.fsdecode(unquote_to_bytes(address.removeprefix("file://")))


def check_place(path: str) -> str:
    """`path` itself, if a dataset may lie there, whether or not one does.

    Raises:
        InputError: no file system could have such a name, or a file stands there or above.
    """
    try:
        mode = Path(path).stat().st_mode
    except NotADirectoryError as exc:
        raise InputError(f"{path}: lies below a file; a dataset is a folder: name another place") from exc
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            raise InputError(f"{path[:60]}...: a name in it is too long for this disk; shorten it") from exc
        return path  # not there yet, or not for us to see: the first that reads or writes says so
    if not stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a file; a dataset is a folder: name the folder, or another place")
    return path


def local_etag(found: os.stat_result) -> str:
    """What changes when a local file changes: its modification time and size."""
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


def _info(name: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(name, found.st_size, local_etag(found), found.st_mtime)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folders(folder: Path) -> None:
    """Like makedirs, but each new folder is durable in its parent."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir()
        _sync_folder(path.parent)


def _open_plain(path: Path) -> BinaryIO:
    """A file to read. Raises NotAFile, without waiting for a pipe's writer; OSError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # a socket
            raise NotAFile(f"{path}: a socket, not a file; put the file itself there") from exc
        raise
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotAFile(f"{path}: a pipe or device, not a file; put the file itself there")


def _free_text(root: str) -> str:
    return f"{shutil.disk_usage(_nearest(root)).free / 1e6:.1f} MB free"


def _out_of_inodes(root: str) -> bool:
    """Whether it is the number of files that is used up; a file system without a limit says 0 of 0."""
    found = os.statvfs(_nearest(root))
    return found.f_files > 0 and found.f_favail == 0


def _nearest(root: str) -> Path:
    path = Path(root)
    while not path.exists():
        path = path.parent
    return path


KIND = StoreKind("", "a local path", LocalStore)
