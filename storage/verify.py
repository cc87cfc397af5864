"""Does the dataset hold every image exactly once, annotated or rejected with a reason?

Each planned shard is followed through its columns: the images record must account for the planned keys, the
masks record for the keys that images wrote. Objects must be there in full size; `deep` reads them too:
checksums, every key and its order, pictures kept at their source, the index.

What counts is the latest generation, and beyond it what is committed of its column versions; without a
generation, the version of each column with the most shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from storage.columns import ColumnVersion, list_versions
from storage.errors import AccessDenied, StorageError, StoreUnavailable
from storage.generations import GenerationRow, latest, read_record, read_row, row_of
from storage.in_order import in_order
from storage.index import read_index
from storage.objects import ObjectStore, is_s3
from storage.plan import Plan, load_plans
from storage.shards import check_object, check_size

MAX_PROBLEMS = 1000
COLUMNS = ("images", "masks")  # in the order they are made


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was found, in images.

    Attributes:
        images: inputs the plan knows: those in shards and those it rejected.
        annotated: with a mask record.
        rejected: by the plan, by ingest, or by a later stage, each with a reason.
        missing: neither.
        duplicated: more often than once, or never planned.
        damaged: in shards whose objects or records are lost or not what they should be.
        problems: each named, at most MAX_PROBLEMS and a last line that says how many more.
    """

    images: int
    annotated: int
    rejected: int
    missing: int
    duplicated: int
    damaged: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every image is there exactly once and nothing is wrong."""
        return not (self.missing or self.duplicated or self.damaged or self.problems)


@dataclass(frozen=True)
class _Finding:
    """What a shard, or a shard of one column, adds to the report; `passed` are the keys it hands on."""

    annotated: int = 0
    rejected: int = 0
    missing: int = 0
    duplicated: int = 0
    damaged: int = 0
    passed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def verify(
    store: ObjectStore,
    *,
    deep: bool = False,
    num_threads: int = 8,
    progress: Callable[[int], None] | None = None,
) -> VerifyReport:
    """Checks a dataset; changes nothing.

    Args:
        store: the dataset.
        deep: read every byte instead of only presence, sizes and records.
        num_threads: shards checked at once.
        progress: called with the number of shards checked so far.

    Raises:
        DamagedObject: the plan or the generation itself cannot be read.
        AccessDenied, StoreUnavailable: as the store says.
    """
    plan = load_plans(store)
    by_shard, problems = _rows_in_force(store, plan)
    found = [_check_plan(store, plan, deep), _Finding(rejected=plan.num_rejects, problems=tuple(problems))]

    def check(shard: int) -> Iterator[_Finding]:
        yield _check_shard(store, plan, shard, by_shard.get(shard, {}), deep)

    with closing(in_order(range(plan.num_shards), check, num_threads)) as findings:
        for number, finding in enumerate(findings, start=1):
            found.append(finding)
            if progress is not None:
                progress(number)
    found += [_unplanned(shard, rows) for shard, rows in by_shard.items() if shard >= plan.num_shards]
    return _report(plan, found)


def _report(plan: Plan, found: Sequence[_Finding]) -> VerifyReport:
    problems = [problem for finding in found for problem in finding.problems]
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
    report = VerifyReport(
        images=plan.num_images + plan.num_rejects,
        annotated=sum(finding.annotated for finding in found),
        rejected=sum(finding.rejected for finding in found),
        missing=sum(finding.missing for finding in found),
        duplicated=sum(finding.duplicated for finding in found),
        damaged=sum(finding.damaged for finding in found),
        problems=tuple(problems),
    )
    accounted = report.annotated + report.rejected + report.missing + report.damaged
    assert accounted == report.images, f"{accounted} accounted for, of {report.images}"
    return report


def _rows_in_force(store: ObjectStore, plan: Plan) -> tuple[dict[int, dict[str, GenerationRow]], list[str]]:
    """Rows by shard and column, and what is remarkable about their choice."""
    generation = latest(store)
    by_shard: dict[int, dict[str, GenerationRow]] = {}
    for row in generation.rows() if generation else ():
        by_shard.setdefault(row.shard, {})[row.column] = row
    columns = dict(generation.columns) if generation else _fullest_versions(store)
    problems = []
    for column, fingerprint in columns.items():
        version = ColumnVersion(store, column, fingerprint)
        for shard in sorted(version.committed()):
            if column in by_shard.get(shard, {}):
                continue
            try:
                record = version.record(shard)
            except StorageError as exc:
                problems.append(str(exc))
                continue
            if record is not None:
                by_shard.setdefault(shard, {})[column] = row_of(version, record)
    return by_shard, problems


def _fullest_versions(store: ObjectStore) -> dict[str, str]:
    fullest = {}
    for column in COLUMNS:
        versions = list_versions(store, column)
        if versions:
            fullest[column] = max(versions, key=lambda version: len(version.committed())).fingerprint
    return fullest


def _check_plan(store: ObjectStore, plan: Plan, deep: bool) -> _Finding:
    problems = []
    for part in plan.parts:
        for table in (part.rows, part.rejects):
            if table is not None:
                try:
                    (check_object if deep else check_size)(store, table.written)
                except StorageError as exc:
                    problems.append(str(exc))
    return _Finding(problems=tuple(problems))


def _check_shard(
    store: ObjectStore, plan: Plan, shard: int, rows: Mapping[str, GenerationRow], deep: bool
) -> _Finding:
    """Follows a shard's planned keys through images and masks; every key ends in exactly one count."""
    keys = plan.keys_of(shard)
    rejected = missing = duplicated = 0
    problems: list[str] = []
    for column in COLUMNS:
        row = rows.get(column)
        if row is None:
            problems.append(f"shard {shard}: {column} is missing, {len(keys)} images")
            missing += len(keys)
            keys = ()
            break
        try:
            found = _check_row(store, row, keys, rows, deep)
        except StorageError as exc:
            if is_s3(store.root) and isinstance(exc, StoreUnavailable | AccessDenied):
                raise  # not answering is no damage
            problems.append(f"shard {shard}: {column}: {exc}")
            return _Finding(0, rejected, missing, duplicated, len(keys), (), tuple(problems))
        rejected += found.rejected
        missing += found.missing
        duplicated += found.duplicated
        problems += found.problems
        keys = found.passed
    return _Finding(len(keys), rejected, missing, duplicated, 0, (), tuple(problems))


def _check_row(
    store: ObjectStore,
    row: GenerationRow,
    keys: tuple[str, ...],
    rows: Mapping[str, GenerationRow],
    deep: bool,
) -> _Finding:
    """A column's shard against the keys that reached it. Raises StorageError for damage."""
    record = read_record(store, row)
    check_size(store, row.data)
    if row.index is not None:
        check_size(store, row.index)
    where = f"shard {row.shard}: {row.column}"
    problems = [
        f"{where} was made from another {column} record than the one in force"
        for column, sha256 in record.inputs.items()
        if column in rows and rows[column].record_sha256 != sha256
    ]
    rejected = {reject.key for reject in record.rejects}
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
    return _Finding(
        rejected=len(keys) - len(wanted),
        missing=len(wanted) - len(passed),
        duplicated=duplicated,
        passed=passed,
        problems=tuple(problems),
    )


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
