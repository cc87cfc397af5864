"""The simulated store: an ObjectStore over a World's memory, each of whose calls the scheduler may cut in on.

    sim://data-<actor>      the dataset, as that actor's process has it: one content, a view for each process
    sim://<else>            another place: inputs, exports

Streams are held back until they end, as a temporary file or a multipart upload is; until then they are listed
as unfinished, and one that was given up meanwhile fails.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, BinaryIO

from maskmill.storage.errors import ObjectNotFound
from maskmill.storage.stores import open as opening
from maskmill.storage.stores.base import ObjectInfo, StoreKind, Unfinished, check_name

if TYPE_CHECKING:
    from tests.simulation.machine.world import World

Objects = dict[str, tuple[bytes, float]]


@dataclass(eq=False, frozen=True)
class SimStore:
    """One process's view of one place."""

    world: World
    root: str

    @cached_property
    def space(self) -> str:
        """Which content: views of the dataset share one."""
        bucket = self.root.removeprefix("sim://")
        return "data" if bucket.startswith("data-") else bucket

    @cached_property
    def _objects(self) -> Objects:
        return self.world.spaces.setdefault(self.space, {})

    @cached_property
    def _open(self) -> dict[str, float]:
        return self.world.unfinished.setdefault(self.space, {})

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`; a page for all."""

        def found() -> list[ObjectInfo]:
            """Now."""
            names = sorted([name for name in self._objects if name.startswith(prefix)])
            return [_info_of(name, *self._objects[name]) for name in names]

        yield from self.world.call("list", prefix, found)

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """See `ObjectStore.folders`."""

        def found() -> tuple[str, ...]:
            """Now."""
            names = [name[len(prefix) :] for name in self._objects if name.startswith(prefix)]
            return tuple(sorted({name.partition("/")[0] for name in names if "/" in name}))

        return self.world.call("folders", prefix, found)

    def stat(self, name: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        return self.world.call("stat", name, lambda: self._info(name))

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See `ObjectStore.read`."""
        data = self.world.call("read", name, lambda: self._data(name))
        return data[start:] if size is None else data[start : start + size]

    def open_read(self, name: str, start: int = 0, size: int | None = None) -> BinaryIO:
        """See `ObjectStore.open_read`."""
        data = self.world.call("open_read", name, lambda: self._data(name))
        return io.BytesIO(data[start:] if size is None else data[start : start + size])

    @contextmanager
    def open_write(self, name: str) -> Iterator[BinaryIO]:
        """See `ObjectStore.open_write`."""
        check_name(name)
        upload = f"{name}~{self.world.random.getrandbits(40):010x}"
        stream = _Stream()
        self._open[upload] = self.world.now_s
        try:
            yield stream
        except BaseException as exc:
            if isinstance(exc, Exception):  # who is killed leaves it there
                self._open.pop(upload, None)
            raise
        self.world.call("finish", name, lambda: self._finish(upload, name, stream.getvalue()))

    def _finish(self, upload: str, name: str, data: bytes) -> None:
        if upload not in self._open:
            if self._objects.get(name, (None, 0.0))[0] == data:
                return  # asked once more after a lost answer
            raise ObjectNotFound(f"{self.root}/{name}: this write was given up")
        del self._open[upload]
        self._set(name, data)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See `ObjectStore.put_if_absent`."""
        check_name(name)

        def decide() -> bool:
            """Now."""
            if name in self._objects:
                return self._data(name) == data
            self._set(name, data)
            return True

        return self.world.call("put_if_absent", name, decide)

    def put(self, name: str, data: bytes) -> None:
        """See `ObjectStore.put`."""
        check_name(name)
        self.world.call("put", name, lambda: self._set(name, data))

    def delete(self, name: str) -> None:
        """See `ObjectStore.delete`."""

        def remove() -> None:
            """Now."""
            self.world.on_change(self.space, name, None)
            self._objects.pop(name, None)

        self.world.call("delete", check_name(name), remove)

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """See `ObjectStore.unfinished`."""

        def found() -> list[Unfinished]:
            """Now."""
            return [
                Unfinished(upload.partition("~")[0], upload, 0, began_s)
                for upload, began_s in sorted(self._open.items())
                if upload.startswith(prefix)
            ]

        yield from self.world.call("unfinished", prefix, found)

    def abandon(self, write: Unfinished) -> None:
        """See `ObjectStore.abandon`."""
        self.world.call("abandon", write.name, lambda: self._open.pop(write.upload_id, None))

    def _set(self, name: str, data: bytes) -> None:
        self.world.on_change(self.space, name, data)
        self._objects[name] = (bytes(data), self.world.now_s)

    def _data(self, name: str) -> bytes:
        if name not in self._objects:
            raise ObjectNotFound(f"{self.root}/{name}: no such object")
        return self._objects[name][0]

    def _info(self, name: str) -> ObjectInfo:
        return _info_of(name, self._data(name), self._objects[name][1])


@lru_cache(maxsize=16384)
def _info_of(name: str, data: bytes, modified_s: float) -> ObjectInfo:
    """Of an object; it is asked for at every listing."""
    return ObjectInfo(name, len(data), hashlib.sha256(data).hexdigest(), modified_s)


class _Stream(io.BytesIO):
    """A buffer whose bytes outlive its closing by who wrote into it."""

    def close(self) -> None:
        """Nothing."""


def _make(root: str) -> SimStore:
    """The view of a root in the newest world."""
    assert newest, "no world is there yet"
    world = newest[-1]
    return next((one.store for one in world.drivers if one.store.root == root), SimStore(world, root))


KIND = StoreKind(scheme="sim", form="sim://place", make=_make)
newest: list[World] = []
"""The world that addresses mean, once there is one."""


@contextmanager
def opened_by_address() -> Iterator[None]:
    """Inside, `open_store` knows `sim://` addresses."""
    kinds = opening.KINDS
    opening.KINDS = (*kinds, KIND)
    try:
        yield
    finally:
        opening.KINDS = kinds
