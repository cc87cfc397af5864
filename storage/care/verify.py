"""Does the dataset hold every image exactly once, annotated or rejected with a reason?

Each planned shard is followed through its columns: the images record must account for the planned keys, the
record of any other column for the keys that images wrote. Objects must be there in full size; `deep` reads
them too: checksums, every key and its order, pictures kept at their source, the index. Images must be there,
and masks; or, in a dataset whose generation has no masks, the columns that it has (an import's). Of other
columns (captions, labels, names, ...) what is there is checked, and what is not counted. An image that an
imported file doesn't name is not annotated, which is no rejection.

What counts is the latest generation, and beyond it what is committed of its column versions; without a
generation, the version of each column with the most shards. Plans, generations, models, tags, people's saves
and the marks of forgotten images are looked at beside it (record_check.py, save_check.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maskmill.storage.care.carried import Carried, Meant
from maskmill.storage.care.record_check import RESTORE, forgotten_problems, newest_readable, record_problems
from maskmill.storage.dataset.columns import ColumnVersion, list_columns, list_versions, making_order
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.join import read_record, read_row
from maskmill.storage.dataset.manifest import KEY, GenerationRow, row_of, table_rows
from maskmill.storage.dataset.records import NOT_ANNOTATED
from maskmill.storage.dataset.row_set import Key, Rows, RowSet
from maskmill.storage.errors import (
    DamagedObject,
    ObjectNotFound,
    StorageError,
)
from maskmill.storage.plan.plan import Plan, load_plans
from maskmill.storage.shards.index import read_index
from maskmill.storage.shards.shards import check_size
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.in_order import in_order
from maskmill.storage.stores.open import is_silence

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PROBLEMS = 1000
COUNTED = ("annotated", "rejected", "missing", "duplicated", "damaged", "unannotated")


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was found, in images.

    Attributes:
        images: inputs the plan knows: those in shards and those it rejected.
        annotated: with masks, and a sample in every other column that their shard has.
        rejected: by the plan, by ingest, or by a later stage, each with a reason.
        missing: neither.
        duplicated: more often than once, or never planned.
        damaged: in shards whose objects or records are lost or not what they should be.
        problems: each named, at most MAX_PROBLEMS and a last line that says how many more.
        lacking: column -> images in shards that have no such column yet, though others have.
        unannotated: taken in, and named by none of the files that were imported.
    """

    images: int
    annotated: int
    rejected: int
    missing: int
    duplicated: int
    damaged: int
    problems: tuple[str, ...]
    lacking: Mapping[str, int] = field(default_factory=dict)
    unannotated: int = 0

    @property
    def ok(self) -> bool:
        """Every image is there exactly once and nothing is wrong."""
        return not (self.missing or self.duplicated or self.damaged or self.problems)


@dataclass(frozen=True)
class _Finding:
    """What a shard adds to the report."""

    annotated: int = 0
    rejected: int = 0
    missing: int = 0
    duplicated: int = 0
    damaged: int = 0
    problems: tuple[str, ...] = ()
    lacking: Mapping[str, int] = field(default_factory=dict)
    unannotated: int = 0


@dataclass
class _Sums:
    """What all findings come to; the first problems, and how many there are."""

    counts: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    num_problems: int = 0

    def add(self, finding: _Finding) -> None:
        """One more."""
        for name in COUNTED:
            self.counts[name] += getattr(finding, name)
        self.lacking.update(finding.lacking)
        self.num_problems += len(finding.problems)
        self.problems += finding.problems[: MAX_PROBLEMS - len(self.problems)]


@dataclass(frozen=True)
class _Column:
    """A shard of one column against the keys that reached it: those it rejects, doesn't know, has."""

    rejected: frozenset[str] = frozenset()
    unnamed: frozenset[str] = frozenset()
    passed: tuple[str, ...] = ()
    duplicated: int = 0
    problems: tuple[str, ...] = ()
    damaged: bool = False


def verify(
    store: ObjectStore,
    *,
    deep: bool = False,
    num_threads: int = 8,
    known: Generation | None = None,
    progress: Callable[[int], None] | None = None,
) -> VerifyReport:
    """Checks a dataset; changes nothing.

    Args:
        store: the dataset.
        deep: read every byte instead of only presence, sizes and records.
        num_threads: shards checked at once.
        known: a generation that was checked when it was published: shards that have its very rows are
            counted by them, and neither their records nor their objects are looked at.
        progress: called with the number of shards checked so far.

    Raises:
        AccessDenied, StoreUnavailable: as the store says.
    """
    try:
        plan = load_plans(store, copies=False)
    except (DamagedObject, ObjectNotFound) as exc:
        sums = _Sums()
        sums.add(_Finding(problems=(f"{exc}; {RESTORE}",)))
        return _report(Plan(store, ()), sums)
    rows, problems = _rows_in_force(store)
    meant = _meant(making_order({column for (column,) in rows.scan("column")}))
    problems += record_problems(store, plan, deep=deep)
    sums = _Sums()
    sums.add(_Finding(rejected=plan.num_rejects, problems=tuple(problems)))

    # Shards that were checked before are counted on the way to the others
    carried = Carried(plan, meant, known) if known is not None else None

    def check(unit: tuple[int, Rows]) -> Iterator[_Finding]:
        """One shard, followed through its columns."""
        shard, found = unit
        yield _check_shard(store, plan, shard, meant, found, deep)

    with closing(in_order(_left(plan, rows, carried, sums), check, num_threads)) as findings:
        for number, finding in enumerate(findings, start=1):
            sums.add(finding)
            if progress is not None:
                progress(number)
    if carried is not None:
        sums.add(_Finding(**carried.counted()))
    sums.add(_Finding(problems=tuple(forgotten_problems(store, deep=deep))))
    return _report(plan, sums)


def _report(plan: Plan, sums: _Sums) -> VerifyReport:
    problems = sums.problems
    if sums.num_problems > len(problems):
        problems = [*problems, f"and {sums.num_problems - len(problems)} more"]
    report = VerifyReport(
        images=plan.num_images + plan.num_rejects,
        problems=tuple(problems),
        lacking=dict(sums.lacking),
        **{name: sums.counts[name] for name in COUNTED},
    )
    accounted = report.annotated + report.rejected + report.unannotated + report.missing + report.damaged
    assert accounted == report.images, f"{accounted} accounted for, of {report.images}"
    return report


def _rows_in_force(store: ObjectStore) -> tuple[RowSet, list[str]]:
    """The generation's rows and what is committed beyond it, and what is remarkable about their choice."""
    generation = newest_readable(store)
    rows = generation.row_set() if generation else RowSet(store)
    columns = dict(generation.columns) if generation else _fullest_versions(store)
    versions = {column: ColumnVersion(store, column, digits) for column, digits in columns.items()}

    # Committed, and no row of that column there
    newer = {column: version.repairs() for column, version in versions.items()}
    for shard, column in rows.scan(*KEY):
        if column in newer:
            newer[column].pop(shard, None)

    problems: list[str] = []
    beyond: dict[Key, GenerationRow] = {}
    for column, version in versions.items():
        with closing(version.read_shards(newer[column], repairs=newer[column])) as records:
            for shard, record in records:
                if isinstance(record, StorageError):
                    problems.append(str(record))
                else:
                    beyond[shard, column] = row_of(version, record)
    return rows.changed(beyond), problems


def _left(plan: Plan, rows: RowSet, carried: Carried | None, sums: _Sums) -> Iterator[tuple[int, Rows]]:
    """The shards to be looked at, with their rows: all that are planned but those that `carried` counts.

    What has rows and was never planned goes to `sums`.
    """
    expected = 0
    for table in rows.tables():
        numbers = table.column("shard").to_pylist()
        counted = carried.of_table(table) if carried is not None else frozenset[int]()
        at = 0
        while at < len(numbers):
            shard, end = numbers[at], bisect_right(numbers, numbers[at], at)
            if shard >= plan.num_shards:
                sums.add(_unplanned(shard, _rows_of(table.slice(at, end - at))))
            else:
                yield from ((absent, {}) for absent in range(expected, shard))
                if shard not in counted:
                    yield shard, _rows_of(table.slice(at, end - at))
                expected = shard + 1
            at = end
    yield from ((absent, {}) for absent in range(expected, plan.num_shards))


def _rows_of(table: pa.Table) -> Rows:
    return {row.column: row for row in table_rows(table)}


def _meant(columns: list[str]) -> Meant:
    """Masks, as every run makes; what was imported where there are none."""
    imported = tuple(column for column in columns if column != "images")
    return Meant(tuple(columns), ("masks",) if "masks" in columns or not imported else imported)


def _fullest_versions(store: ObjectStore) -> dict[str, str]:
    fullest = {}
    for column in list_columns(store):
        versions = list_versions(store, column)
        fullest[column] = max(versions, key=lambda version: len(version.committed())).fingerprint
    return fullest


def _check_shard(
    store: ObjectStore, plan: Plan, shard: int, meant: Meant, rows: Rows, deep: bool
) -> _Finding:
    """Follows a shard's planned keys through its columns; every key ends in exactly one count.

    Args:
        meant: what it should hold.
        rows: of the shard, by column.
    """
    keys = plan.keys_of(shard)
    if "images" not in rows:
        return _Finding(missing=len(keys), problems=(_absent(shard, "images", len(keys)),))
    images = _check_column(store, rows["images"], keys, rows, deep)
    if images.damaged:
        return _Finding(damaged=len(keys), problems=images.problems)

    # Columns made from the pictures that passed
    reached = images.passed
    others = {
        column: _check_column(store, rows[column], reached, rows, deep)
        for column in meant.columns
        if column in rows and column != "images"
    }
    basis = [others[column] for column in meant.needed if column in others]

    # Every key that reached them in one count
    rejected = frozenset[str]().union(*(found.rejected for found in others.values()))
    left = set(reached) - rejected
    damaged = left if any(found.damaged for found in others.values()) else set()
    absent = tuple(_absent(shard, column, len(reached)) for column in meant.needed if column not in rows)
    unannotated = left.intersection(*(found.unnamed for found in basis)) if not absent else set()
    complete = left.intersection(*(found.unnamed.union(found.passed) for found in others.values()))
    annotated = set() if absent else complete - unannotated - damaged
    unannotated -= damaged
    lost = left - annotated - unannotated - damaged
    return _Finding(
        annotated=len(annotated),
        rejected=len(images.rejected) + len(rejected),
        missing=len(keys) - len(images.rejected) - len(reached) + len(lost),
        duplicated=images.duplicated + sum(found.duplicated for found in others.values()),
        damaged=len(damaged),
        problems=(*images.problems, *(text for found in others.values() for text in found.problems), *absent),
        lacking={
            column: len(reached) for column in meant.columns if column not in ("images", *meant.needed, *rows)
        },
        unannotated=len(unannotated),
    )


def _absent(shard: int, column: str, num_images: int) -> str:
    return f"shard {shard}: {column} is missing, {num_images} images"


def _check_column(
    store: ObjectStore, row: GenerationRow, keys: tuple[str, ...], rows: Rows, deep: bool
) -> _Column:
    """A column's shard against the keys that reached it; damage is a finding."""
    try:
        return _check_row(store, row, keys, rows, deep)
    except StorageError as exc:
        if is_silence(store.root, exc):
            raise  # not answering is no damage
        return _Column(damaged=True, problems=(f"shard {row.shard}: {row.column}: {exc}",))


def _check_row(
    store: ObjectStore, row: GenerationRow, keys: tuple[str, ...], rows: Rows, deep: bool
) -> _Column:
    """As _check_column. Raises StorageError for damage."""
    record = read_record(store, row)
    check_size(store, row.data)
    if row.index is not None:
        check_size(store, row.index)

    # What it was made from
    where = f"shard {row.shard}: {row.column}"
    problems = [
        f"{where} was made from another {column} record than the one in force"
        for column, sha256 in record.inputs.items()
        if column in rows and rows[column].record_sha256 != sha256
    ]

    # Which keys it accounts for
    rejected = {reject.key for reject in record.rejects}
    unnamed = {reject.key for reject in record.rejects if reject.reason == NOT_ANNOTATED}
    strangers = sorted(rejected - set(keys))
    if strangers:
        problems.append(f"{where} rejects keys that never reached it: {_some(strangers)}")
    wanted = tuple(key for key in keys if key not in rejected)
    found = tuple(sample.key for sample in read_row(store, row)) if deep else None
    passed, duplicated = _compare(where, wanted, found, record.num_written, problems)

    if deep and row.index is not None:
        indexed = set(read_index(store, row.index).column("key").to_pylist())
        if not indexed <= set(wanted):
            problems.append(
                f"{where}: the index has keys the shard lacks: {_some(sorted(indexed - set(wanted)))}"
            )
    reached = frozenset(keys)
    return _Column(reached & (rejected - unnamed), reached & unnamed, passed, duplicated, tuple(problems))


def _compare(
    where: str, wanted: tuple[str, ...], found: tuple[str, ...] | None, num_written: int, problems: list[str]
) -> tuple[tuple[str, ...], int]:
    """The wanted keys that are there, and how many are there too often; `found` is None if only counted."""
    if found is None:
        if num_written != len(wanted):
            problems.append(f"{where} has {num_written} samples, but {len(wanted)} keys reached it")
        return wanted[:num_written], max(0, num_written - len(wanted))
    if found == wanted:
        return wanted, 0
    there = set(found)
    passed = tuple(key for key in wanted if key in there)
    absent, extra = sorted(set(wanted) - there), sorted(there - set(wanted))
    told = [f"lacks {_some(absent)}" if absent else "", f"has unknown {_some(extra)}" if extra else ""]
    told += [
        "has keys twice" if len(there) < len(found) else "",
        "" if absent or extra else "is out of order",
    ]
    problems.append(f"{where} {', '.join(one for one in told if one)}")
    return passed, len(found) - len(passed)


def _unplanned(shard: int, rows: Mapping[str, GenerationRow]) -> _Finding:
    num_written = max(row.num_written for row in rows.values())
    return _Finding(duplicated=num_written, problems=(f"shard {shard}: has samples but is not planned",))


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
