"""Commit records: the small JSON that makes a shard of a column version exist, and what it accounts for.

It does not know: where records are stored, and which of several is in force (columns.py).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

from maskmill.storage.errors import DamagedObject
from maskmill.storage.json_text import from_json, load_object, sealed
from maskmill.storage.secret_words import blank_secrets
from maskmill.storage.shards.shards import WrittenObject

FORMAT_VERSION = 1

NOT_ANNOTATED = "not_annotated"
"""A reject's reason that is none: what an imported file says nothing of."""


@dataclass(frozen=True)
class Reject:
    """A sample that a stage did not annotate, and why.

    Attributes:
        key: the sample's.
        reason: a short word to count by, e.g. "not_an_image", "too_small", "crashed_the_worker".
        detail: what exactly, for a person.
    """

    key: str
    reason: str
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", blank_secrets(self.detail))  # it is stored and shown


@dataclass(frozen=True, kw_only=True)
class CommitRecord:
    """What makes a shard of a column version exist.

    Attributes:
        column: "images", "masks", ...
        fingerprint: the version's, 16 hexadecimal digits.
        shard: number.
        attempt: unique to the try that made it (new_attempt()).
        data: the tar; its num_samples is num_written.
        index: the Parquet rows, if the column has them.
        num_read: keys that came in: num_written + len(rejects).
        num_written: samples in `data`.
        rejects: keys without a sample, each once.
        inputs: sha256 of the record of each column that was read, by column.
        models: name or identity of each model used, by role.
        seconds_by_step: time spent, by step.
        created_utc: ISO 8601.
        repair: 0, or the number of the repair that superseded the first record.
        rewrites: sha256 of the record that this one stands for: the same samples, less those forgotten.
    """

    column: str
    fingerprint: str
    shard: int
    attempt: str
    data: WrittenObject
    index: WrittenObject | None = None
    num_read: int
    num_written: int
    rejects: tuple[Reject, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    seconds_by_step: Mapping[str, float] = field(default_factory=dict)
    created_utc: str
    repair: int = 0
    rewrites: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        assert self.num_written + len(self.rejects) == self.num_read, "every key read is written or rejected"
        assert self.data.num_samples == self.num_written, "the tar holds what the record says"
        assert len({reject.key for reject in self.rejects}) == len(self.rejects), "a key is rejected once"

    @cached_property
    def sha256(self) -> str:
        """Of the stored bytes: how records that read this one name it."""
        return hashlib.sha256(record_bytes(self)).hexdigest()

    @property
    def version(self) -> str:
        """The column version's folder, column/fingerprint."""
        return f"{self.column}/{self.fingerprint}"


def record_bytes(record: CommitRecord) -> bytes:
    """The record as it is stored: JSON, keys sorted, sealed."""
    return sealed(asdict(record))


def parse_record(data: bytes) -> CommitRecord:
    """The inverse of record_bytes.

    Raises:
        DamagedObject: not such JSON, of a newer format, or its numbers contradict each other.
    """
    try:
        fields = load_object(data)
        if fields.get("format_version") != FORMAT_VERSION:
            raise DamagedObject(
                f"a record of format {fields.get('format_version')}; this one reads {FORMAT_VERSION}: update"
            )
        return from_json(CommitRecord, fields)
    except ValueError as exc:
        raise DamagedObject(f"not a readable commit record ({exc})") from exc


def fingerprint(
    settings: Mapping[str, object], *, weights: str | None, revision: int, inputs: Mapping[str, str]
) -> str:
    """16 hexadecimal digits that change when a stage's output may.

    Args:
        settings: those that change output; JSON scalars, lists and mappings (1 and 1.0 are the same).
        weights: sha256 of the model's weights, None without a model.
        revision: the stage's, raised by hand when its code gives other output.
        inputs: fingerprint of each column read, by column.
    """
    facts = {"settings": settings, "weights": weights, "revision": revision, "inputs": dict(inputs)}
    text = json.dumps(_plain(facts), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def new_attempt() -> str:
    """A name that no other try of any shard has."""
    return uuid.uuid4().hex[:16]


def first_rejects(records: Iterable[CommitRecord]) -> dict[str, Reject]:
    """The rejected keys of a shard, each with its first reject in the order of the records.

    Args:
        records: one of each column, in the order the columns are made.
    """
    rejects: dict[str, Reject] = {}
    for record in records:
        for reject in record.rejects:
            if reject.key not in rejects or rejects[reject.key].reason == NOT_ANNOTATED:
                rejects[reject.key] = reject
    return rejects


def _plain(value: object) -> object:
    """JSON with one form per value: integral floats become integers, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
