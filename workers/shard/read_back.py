"""Committed columns read back, in step with the images they were made of, for stages that read them.

A column's shard has the keys of its images shard in the same order, less those its record rejects: so one
pass over both gives each key its sample or the reject that stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord, Reject
from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.shards import Sample


class ReadBack:
    """Columns of one shard.

    Args:
        columns: version and record in force of each, by column.
    """

    def __init__(self, columns: Mapping[str, tuple[ColumnVersion, CommitRecord]]) -> None:
        self._streams = {name: _Stream(*found) for name, found in columns.items()}

    def take(self, key: str) -> dict[str, Sample | Reject]:
        """What each column has of the next image.

        Args:
            key: of the images' keys, in their order.

        Raises:
            DamagedObject: a column is not what its record says.
        """
        return {name: stream.take(key) for name, stream in self._streams.items()}

    def finish(self) -> None:
        """Reads the columns to their ends, which checks them. Raises DamagedObject."""
        for stream in self._streams.values():
            stream.finish()


class _Stream:
    def __init__(self, version: ColumnVersion, record: CommitRecord) -> None:
        self._where = f"{version.store.root}/{record.data.name}"
        self._samples = version.read(record)
        self._rejects = {reject.key: reject for reject in record.rejects}

    def take(self, key: str) -> Sample | Reject:
        """Its sample of the next image, or the reject. Raises DamagedObject."""
        if key in self._rejects:
            return self._rejects[key]
        sample = next(self._samples, None)
        if sample is None or sample.key != key:
            has = sample.key if sample else "nothing"
            raise DamagedObject(f"{self._where}: has {has} where {key} belongs")
        return sample

    def finish(self) -> None:
        """Reads to the end. Raises DamagedObject: more samples than images."""
        left = next(self._samples, None)
        if left is not None:
            raise DamagedObject(f"{self._where}: has {left.key}, which its images lack")
