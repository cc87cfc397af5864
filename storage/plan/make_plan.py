"""Making a plan: list, hash, drop what is known or double, cut shards, write.

One pass, streamed: rows go to Parquet as they come. Held in memory are digests of what is planned already
(about 100 bytes an image, 50 a tar, 300 a reject) to find duplicates and to leave unchanged files unread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.drivers.lease import check_lease
from maskmill.storage.errors import InputError, StoreUnavailable
from maskmill.storage.plan.examine import NOT_UTF8, Examined, HashedImage, KnownInput, ScannedTar, examine
from maskmill.storage.plan.inputs import InputListing, list_inputs
from maskmill.storage.plan.ledger import Ledger, digest
from maskmill.storage.plan.plan import (
    FOLDER,
    MAX_SHARD_SIZE,
    Plan,
    PlanPart,
    PlanReject,
    image_key,
    load_plans,
    part_bytes,
    part_name,
)
from maskmill.storage.plan.sources import PlannedImage, source_label
from maskmill.storage.plan.tables import (
    REJECT_COLUMNS,
    TAR_COLUMNS,
    PlanTable,
    image_schema,
    read_footer,
    reject_schema,
    tar_schema,
)
from maskmill.storage.shards.arrow import table_of
from maskmill.storage.shards.shards import HashingWriter, WrittenObject
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.promise import ensure_writable

if TYPE_CHECKING:
    import pyarrow as pa

MIN_GROUP_ROWS = (
    4096  # a row group holds whole shards and at least this many rows: the file's footer stays small
)
PROGRESS_EVERY = 100
MAX_RACES = 20  # lost in a row to other drivers


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """What planning found.

    Attributes:
        number: of the plan written, None if nothing was new.
        num_new_images: in that plan.
        num_images, num_shards, num_rejects, rejects_by_reason: of the whole dataset now.
        skipped_by_ending: seen this time and not used, by ending or kind in brackets.
    """

    number: int | None
    num_new_images: int
    num_images: int
    num_shards: int
    num_rejects: int
    rejects_by_reason: dict[str, int]
    skipped_by_ending: dict[str, int]


def make_plan(
    store: ObjectStore,
    inputs: Sequence[str],
    *,
    shard_size: int,
    limit: int | None = None,
    num_threads: int = 8,
    photograph: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> PlanSummary:
    """Plans what is new in the inputs; unchanged inputs make no new plan.

    Args:
        store: the dataset.
        inputs: as for list_inputs.
        shard_size: images in a shard.
        limit: plan no more images than this, the first of the inputs; those planned before count.
        num_threads: files or tars read at once.
        photograph: the field of a sample that is the photograph; None goes by grouped.py's rule.
        progress: called now and then with the number of inputs looked at.

    Raises:
        ValueError: shard_size or limit below 1.
        InputError: an input cannot be used, or no image could be read from all of them.
        AccessDenied, OutOfSpace, BucketNotFound, StoreUnavailable: of the dataset's place, before any work.
    """
    if shard_size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"shard_size {shard_size} and limit {limit} must be at least 1")
    if shard_size > MAX_SHARD_SIZE:
        raise ValueError(f"shard_size {shard_size} is too large: use at most {MAX_SHARD_SIZE}")
    listing = list_inputs(inputs, dataset_root=store.root, photograph=photograph)
    ensure_writable(store)
    for _ in range(MAX_RACES):
        plan = load_plans(store)
        summary = _Planning(store, plan, listing, shard_size, limit, photograph).run(num_threads, progress)
        if summary is not None:
            return summary
        # another driver's plan came first: go on from it
        listing = list_inputs(inputs, dataset_root=store.root, photograph=photograph)
    raise StoreUnavailable(f"{store.root}: {MAX_RACES} other plans were written meanwhile; try again later")


class _Planning:
    """One attempt at writing the next plan."""

    def __init__(
        self,
        store: ObjectStore,
        plan: Plan,
        listing: InputListing,
        shard_size: int,
        limit: int | None,
        photograph: str | None,
    ) -> None:
        self._store, self._plan, self._listing = store, plan, listing
        self._shard_size, self._limit, self._photograph = shard_size, limit, photograph
        self._number = len(plan.parts) + 1
        self._first_shard = plan.num_shards
        self._first_image_id = plan.num_images + 1
        self._ledger = Ledger(plan)
        self._num_images = 0
        self._reasons, self._resolved_reasons = Counter[str](), Counter[str]()
        self._resolved: list[str] = []
        self._earlier = {digest(reject.source) for reject in plan.iter_rejects()}
        self._num_counted = 0
        self._counted_source, self._num_of_source = "", 0
        self._examples: list[PlanReject] = []

    def run(self, num_threads: int, progress: Callable[[int], None] | None) -> PlanSummary | None:
        """Plans and writes; None if another driver wrote a plan of this number meanwhile.

        Raises:
            InputError: no image could be read from all of the inputs.
            StorageError: the plan cannot be written.
        """
        base = f"{FOLDER}/{self._number:06d}.{new_attempt()}"
        with ExitStack() as tables:
            rows = tables.enter_context(RowWriter(self._store, f"{base}.parquet", image_schema()))
            rejects = tables.enter_context(RowWriter(self._store, f"{base}.rejects.parquet", reject_schema()))
            tars = tables.enter_context(RowWriter(self._store, f"{base}.tars.parquet", tar_schema()))

            # Every input's rows, as they are found
            with closing(
                examine(self._listing, self._ledger, num_threads, photograph=self._photograph)
            ) as examined:
                for found in self._bounded(examined, progress):
                    self._take(found, rows, rejects, tars)
            if self._plan.num_images + self._num_images == 0:
                raise self._nothing_usable()

        # The part, if there is anything new
        part = self._part(rows.written, tuple(rows.group_shards), rejects.written, tars.written)
        if rows.written is None and rejects.written is None:
            self._discard(part)
            return self._summary(self._plan, None)

        check_lease(self._store)
        if not self._store.put_if_absent(part_name(self._number), part_bytes(part)):
            self._discard(part)
            return None
        return self._summary(Plan(self._store, (*self._plan.parts, part)), self._number)

    def _discard(self, part: PlanPart) -> None:
        for table in part.tables:
            self._store.delete(table.written.name)

    def _bounded(
        self, examined: Iterator[Examined], progress: Callable[[int], None] | None
    ) -> Iterator[Examined]:
        """What was examined, until `limit` images are reached; tells `progress`."""
        num_looked_at = 0
        for found in examined:
            yield found
            num_looked_at += found.num_images if isinstance(found, KnownInput) else 1
            if progress is not None and num_looked_at % PROGRESS_EVERY == 0:
                progress(num_looked_at)
            if self._limit is not None and self._num_counted >= self._limit:
                break
        if progress is not None:
            progress(num_looked_at)

    def _take(self, found: Examined, rows: RowWriter, rejects: RowWriter, tars: RowWriter) -> None:
        if isinstance(found, HashedImage):
            self._listing.skipped.update([NOT_UTF8] if found.caption_unread else [])
            self._take_image(found, rows, rejects)
        elif isinstance(found, KnownInput):
            self._count(found.source, found.num_images)
        elif isinstance(found, ScannedTar):
            self._listing.skipped.update(found.skipped)
            values = (found.source, found.etag, self._count(found.source, 0))
            tars.add(dict(zip(TAR_COLUMNS, values, strict=True)), cut=True)
        elif self._ledger.is_planned(found.source):
            self._listing.skipped[f"(planned before, now {found.reason})"] += 1
        else:
            self._reject(found.source, "", 0, found.etag, found.reason, found.detail, rejects)

    def _take_image(self, found: HashedImage, rows: RowWriter, rejects: RowWriter) -> None:
        label = source_label(found.source, found.member)
        first = self._ledger.image_id_of(found.sha256)
        if self._ledger.is_planned(label, found.sha256):  # touched, not changed
            self._count(found.source, 1)
        elif first is not None:
            key = image_key(first)
            reason = "forgotten" if key in self._plan.forgotten else "duplicate"
            detail = f"the same bytes as {key}"
            self._reject(found.source, found.member, found.offset, found.etag, reason, detail, rejects)
        else:
            shard = self._first_shard + self._num_images // self._shard_size
            image_id = self._first_image_id + self._num_images
            rows.add(vars(_planned(found, shard, image_id)), cut=self._num_images % self._shard_size == 0)
            self._ledger.add_image(
                found.source, found.member, found.offset, found.etag, found.sha256, image_id
            )
            self._resolve(label)
            self._num_images += 1
            self._count(found.source, 1)

    def _reject(
        self,
        source: str,
        member: str,
        offset: int,
        etag: str,
        reason: str,
        detail: str,
        rejects: RowWriter,
    ) -> None:
        label = source_label(source, member)
        if len(self._examples) < 3:
            self._examples.append(PlanReject(label, reason, detail))
        if self._ledger.has_reject(label, reason, etag):
            return
        self._resolve(label)
        values = (source, member, offset, etag, reason, detail)
        rejects.add(dict(zip(REJECT_COLUMNS, values, strict=True)), cut=True)
        self._ledger.add_reject(*values)
        self._reasons[reason] += 1

    def _resolve(self, label: str) -> None:
        """An earlier plan's reject of this source no longer holds."""
        reason = self._ledger.resolve(label)
        if reason is not None and digest(label) in self._earlier:
            self._resolved.append(label)
            self._resolved_reasons[reason] += 1

    def _count(self, source: str, num_images: int) -> int:
        """Counts images towards the limit; gives how many there were of this source in a row."""
        if source != self._counted_source:
            self._counted_source, self._num_of_source = source, 0
        self._num_counted += num_images
        self._num_of_source += num_images
        return self._num_of_source

    def _nothing_usable(self) -> InputError:
        told = "; ".join(f"{one.source}: {one.reason}, {one.detail}" for one in self._examples)
        return InputError(
            f"{', '.join(self._listing.inputs)}: no image in it can be used ({told or 'none found'})"
        )

    def _part(
        self,
        rows: PlanTable | None,
        group_shards: tuple[int, ...],
        rejects: PlanTable | None,
        tars: PlanTable | None,
    ) -> PlanPart:
        return PlanPart(
            number=self._number,
            inputs=self._listing.inputs,
            limit=self._limit,
            shard_size=self._shard_size,
            first_shard=self._first_shard,
            num_shards=-(-self._num_images // self._shard_size),
            first_image_id=self._first_image_id,
            num_images=self._num_images,
            rows=rows,
            row_group_shards=group_shards,
            rejects=rejects,
            rejects_by_reason=dict(sorted(self._reasons.items())),
            resolved=tuple(self._resolved),
            resolved_by_reason=dict(sorted(self._resolved_reasons.items())),
            tars=tars,
            skipped_by_ending=dict(sorted(self._listing.skipped.items())),
        )

    def _summary(self, plan: Plan, number: int | None) -> PlanSummary:
        return PlanSummary(
            number=number,
            num_new_images=self._num_images if number is not None else 0,
            num_images=plan.num_images,
            num_shards=plan.num_shards,
            num_rejects=plan.num_rejects,
            rejects_by_reason=plan.rejects_by_reason,
            skipped_by_ending=dict(sorted(self._listing.skipped.items())),
        )


def _planned(found: HashedImage, shard: int, image_id: int) -> PlannedImage:
    read = {name: value for name, value in vars(found).items() if name != "caption_unread"}
    return PlannedImage(key=image_key(image_id), image_id=image_id, shard=shard, **read)


class RowWriter:
    """Rows streamed into one Parquet object; without rows, or on an exception, nothing is there."""

    def __init__(self, store: ObjectStore, name: str, schema: pa.Schema) -> None:
        self._store, self._name, self._schema = store, name, schema
        self._rows: list[dict[str, Any]] = []
        self._open = ExitStack()
        self._hashing: HashingWriter | None = None
        self._writer: Any = None
        self._num_rows = 0
        self.group_shards: list[int] = []
        self.written: PlanTable | None = None

    def __enter__(self) -> RowWriter:
        return self

    def add(self, row: dict[str, Any], cut: bool) -> None:
        """Adds a row; `cut` says that a row group may begin with it."""
        if cut and len(self._rows) >= MIN_GROUP_ROWS:
            self._flush()
        if not self._rows:
            self.group_shards.append(row.get("shard", 0))
        self._rows.append(row)

    def _flush(self) -> None:
        import pyarrow.parquet as pq

        if self._hashing is None:
            self._hashing = HashingWriter(self._open.enter_context(self._store.open_write(self._name)))
            self._writer = pq.ParquetWriter(
                self._hashing, self._schema, compression="zstd", write_page_checksum=True
            )
        columns = {name: [row[name] for row in self._rows] for name in self._schema.names}
        self._writer.write_table(table_of(columns, self._schema), row_group_size=len(self._rows))
        self._num_rows += len(self._rows)
        self._rows = []

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self._open.__exit__(kind, *rest)
            return
        with self._open:
            if self._rows:
                self._flush()
            if self._writer is not None:
                self._writer.close()
        if self._hashing is not None:
            written = WrittenObject(
                self._name, self._hashing.num_bytes, self._hashing.hexdigest(), self._num_rows
            )
            footer = read_footer(self._store, written)
            self.written = PlanTable(written, sha256(footer).hexdigest())
