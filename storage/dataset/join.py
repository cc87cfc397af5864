"""Reading a generation: its columns side by side, sample by sample.

Each column of a shard is one stream; the leading column's keys pull the others along, and what doesn't fit
together is damage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.images import resolved_samples
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.records import CommitRecord, Reject
from maskmill.storage.errors import DamagedObject, Forgotten, ObjectNotFound
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.shards.shards import Sample, check_object, read_shard
from maskmill.storage.stores.base import ObjectStore


@dataclass(frozen=True)
class JoinedSample:
    """A sample of a generation, its columns side by side.

    Attributes:
        key: the sample's.
        shard: its shard.
        files: bytes by column and ending: files["images"]["jpg"], files["masks"]["json"].
        rejects: for columns that have no sample of this key, why.
    """

    key: str
    shard: int
    files: Mapping[str, Mapping[str, bytes]]
    rejects: Mapping[str, Reject]


def join(
    store: ObjectStore,
    generation: Generation,
    columns: Sequence[str] = ("images", "masks"),
    *,
    shards: Iterable[int] | None = None,
) -> Iterator[JoinedSample]:
    """A generation's samples, in key order, with the files of several columns.

    A key that the first column rejected has no sample. Publish what you derive from a shard only after its
    last sample: checksums are known when a shard's stream ends.

    Args:
        store: the dataset.
        generation: what to read.
        columns: the first one leads; a shard that lacks one of the others gives its samples without it.
        shards: only these, in this order; all by default.

    Raises:
        DamagedObject: a shard isn't what its record says, or columns don't fit together.
        SourceChanged, ObjectNotFound, ...: a picture kept at its source isn't there as planned.
    """
    by_shard: dict[int, dict[str, GenerationRow]] = defaultdict(dict)
    for row in generation.rows():
        by_shard[row.shard][row.column] = row
    for shard in sorted(by_shard) if shards is None else shards:
        found = by_shard.get(shard, {})
        if columns[0] in found:
            yield from join_shard(store, [found[column] for column in columns if column in found])


def join_shard(store: ObjectStore, rows: Sequence[GenerationRow]) -> Iterator[JoinedSample]:
    """The samples of one shard, the first row's column leading; see join."""
    lead, *others = rows
    left_out = {reject.key for reject in read_record(store, lead).rejects}
    passed_over = frozenset[str]() if lead.column == "images" else frozenset(left_out)
    streams = {row.column: _Stream(store, row, passed_over) for row in others}
    for sample in read_row(store, lead):
        files = {lead.column: sample.files}
        rejects = {}
        for column, stream in streams.items():
            found = stream.take(sample.key)
            if isinstance(found, Reject):
                rejects[column] = found
            else:
                files[column] = found.files
        yield JoinedSample(sample.key, lead.shard, files, rejects)
    for stream in streams.values():
        stream.finish(left_out)


def read_record(store: ObjectStore, row: GenerationRow) -> CommitRecord:
    """The commit record of a row, the very bytes that were published. Raises DamagedObject."""
    record = ColumnVersion(store, row.column, row.fingerprint).read_record(row.record, row.shard)
    if record is None or record.sha256 != row.record_sha256:
        raise DamagedObject(f"{store.root}/{row.record}: is not the record that was published")
    return record


def check_row(store: ObjectStore, row: GenerationRow) -> None:
    """Whether a row's tar is what its record says: for readers that use samples before they read to the end.

    Pictures are left to who decodes them: their tars are large, and a reader wants few of them.

    Raises:
        DamagedObject: it is not, in the sentence that `verify --deep` has for it.
        Forgotten: the shard held images that were removed since.
    """
    if row.column == "images":
        return
    try:
        check_object(store, row.data)
    except ObjectNotFound as exc:
        raise _forgotten(store, row) or exc from exc


def read_row(store: ObjectStore, row: GenerationRow) -> Iterator[Sample]:
    """The samples of a row's shard, pictures resolved.

    Raises:
        Forgotten: the shard held images that were removed since.
        DamagedObject, ...: as images.resolved_samples.
    """
    try:
        if row.column == "images":
            yield from resolved_samples(store, row.data, row.shard)
        else:
            yield from read_shard(store, row.data)
    except ObjectNotFound as exc:
        raise _forgotten(store, row) or exc from exc


def _forgotten(store: ObjectStore, row: GenerationRow) -> Forgotten | None:
    """Why a row's tar is gone, if that was asked for."""
    plan = load_plans(store)
    if not any(plan.shard_of(key) == row.shard for key in plan.forgotten):
        return None
    try:
        store.stat(row.data.name)
    except ObjectNotFound:
        return Forgotten(
            f"{store.root}: {row.column} of shard {row.shard} held images that `maskmill forget` removed "
            "after this generation was published; later generations have the shard without them"
        )
    return None


class _Stream:
    """A following column's samples, taken in step with the leading one.

    Args:
        passed_over: keys that the leading column rejected and this one may well have.
    """

    def __init__(self, store: ObjectStore, row: GenerationRow, passed_over: frozenset[str]) -> None:
        self._where = f"{store.root}/{row.data.name}"
        self._samples = (sample for sample in read_row(store, row) if sample.key not in passed_over)
        rejects = read_record(store, row).rejects
        self._rejects = {reject.key: reject for reject in rejects if reject.key not in passed_over}

    def take(self, key: str) -> Sample | Reject:
        """The next sample, which must be this key's, or why there is none.

        Raises:
            DamagedObject: another key is there, or none.
        """
        if key in self._rejects:
            return self._rejects[key]
        sample = next(self._samples, None)
        if sample is None or sample.key != key:
            raise DamagedObject(
                f"{self._where}: has {sample.key if sample else 'nothing'} where {key} belongs"
            )
        return sample

    def finish(self, lead_rejects: set[str]) -> None:
        """Reads to the end, which checks the stream.

        Raises:
            DamagedObject: samples are left, or a key was rejected twice.
        """
        left = next(self._samples, None)
        if left is not None:
            raise DamagedObject(f"{self._where}: has {left.key}, which the leading column lacks")
        both = lead_rejects & self._rejects.keys()
        if both:
            raise DamagedObject(f"{self._where}: its record rejects {min(both)}, which never reached it")
