"""One sample of a shard, without reading the shard: tars are scanned header by header, as far as needed.

Where a member lies is remembered, so that neighbours, which a page of pictures asks for together, cost a
ranged read each. Checksums of whole tars are not compared (that would read them whole); `verify --deep` does.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator

from maskmill.storage.dataset.images import resolved_sample
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.errors import DamagedObject, ObjectNotFound
from maskmill.storage.shards.ranged import RangedFile
from maskmill.storage.shards.shards import Sample, WrittenObject
from maskmill.storage.shards.tars import TarDamage, TarMember, scan_tar
from maskmill.storage.stores.base import ObjectStore

SCAN_BYTES = 64 << 10
MAX_TARS = 256  # whose members' places are remembered


class Members:
    """Samples of a dataset's tars, one at a time. Safe to share between threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._scans: OrderedDict[str, _Scan] = OrderedDict()
        self._lock = threading.Lock()

    def sample(self, row: GenerationRow, key: str) -> Sample | None:
        """A sample of a row's shard, its picture resolved; None where the shard has none of this key.

        Raises:
            DamagedObject: the tar is damaged before the sample, or in it.
            ObjectNotFound: the tar, or a picture kept at its source, is gone.
        """
        members = self._scan(row.data).members_of(key)
        if not members:
            return None
        files = {
            member.name.partition(".")[2]: self._store.read(row.data.name, member.offset, member.size_bytes)
            for member in members
        }
        sample = Sample(key, files)
        return resolved_sample(sample, row.shard) if row.column == "images" else sample

    def _scan(self, data: WrittenObject) -> _Scan:
        with self._lock:
            scan = self._scans.pop(data.name, None) or _Scan(self._store, data)
            self._scans[data.name] = scan
            while len(self._scans) > MAX_TARS:
                self._scans.popitem(last=False)
            return scan


class _Scan:
    """Where the members of a tar lie, found as far as somebody asked."""

    def __init__(self, store: ObjectStore, data: WrittenObject) -> None:
        self._store, self._data = store, data
        self._found: defaultdict[str, list[TarMember]] = defaultdict(list)
        self._complete: set[str] = set()
        self._ahead: Iterator[TarMember | TarDamage] | None = None
        self._last = ""
        self._lock = threading.Lock()

    def members_of(self, key: str) -> list[TarMember]:
        """The members of a sample; members of one key stand together. Raises DamagedObject."""
        with self._lock:
            while key not in self._complete and self._step():
                pass
            return list(self._found.get(key, ()))

    def _step(self) -> bool:
        """Takes one more header; False at the end."""
        if self._ahead is None:
            self._ahead = self._headers()
        member = next(self._ahead, None)
        if isinstance(member, TarDamage):
            self._ahead = None
            raise DamagedObject(
                f"{self._store.root}/{self._data.name}: byte {member.offset}: {member.detail}"
            )
        key = "" if member is None else member.name.partition(".")[0]
        if self._last and key != self._last:
            self._complete.add(self._last)
        self._last = key
        if member is None:
            self._ahead = iter(())
            return False
        if not any(one.offset == member.offset for one in self._found[key]):
            self._found[key].append(member)
        return True

    def _headers(self) -> Iterator[TarMember | TarDamage]:
        if self._store.stat(self._data.name).size_bytes != self._data.size_bytes:
            raise DamagedObject(f"{self._store.root}/{self._data.name}: is not of the size that was written")
        raw = RangedFile(self._store, self._data.name, self._data.size_bytes)
        with io.BufferedReader(raw, SCAN_BYTES) as stream:
            yield from scan_tar(stream, self._data.size_bytes)


def missing(key: str, column: str) -> ObjectNotFound:
    """What to say of a sample that isn't there."""
    return ObjectNotFound(f"there is no {column} of image {key} in this generation")
