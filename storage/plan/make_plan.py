"""Making a plan: list, hash, drop what is known or double, cut shards, write.

One pass, streamed: rows go to Parquet as they come. Held in memory are digests of what is planned already, to
find duplicates and to leave unchanged files unread (some 100 bytes an image, 50 a tar, 300 a reject).

`plan_parts` writes a part each time one is due, after a whole shard: its shards can be worked while the rest
is listed and hashed, and a driver that dies loses a part's hashing at most. Parts are put-if-absent: all
drivers see the same shards, however many plan. Where another's images came first, the pass begins anew, over
what is known by then; where only marks of `forget` did, the part takes the next number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain

from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.drivers.lease import check_lease
from maskmill.storage.errors import InputError, StoreUnavailable
from maskmill.storage.plan.examine import NOT_UTF8, Examined, HashedImage, KnownInput, ScannedTar, examine
from maskmill.storage.plan.inputs import (
    InputListing,
    has_only_other_fields,
    list_inputs,
    most_of,
    no_such_field,
)
from maskmill.storage.plan.ledger import Ledger, digest
from maskmill.storage.plan.plan import (
    FOLDER,
    MAX_SHARD_SIZE,
    Plan,
    PlanPart,
    PlanReject,
    image_key,
    load_plans,
    write_part,
)
from maskmill.storage.plan.sources import source_label
from maskmill.storage.plan.tables import (
    REJECT_COLUMNS,
    TAR_COLUMNS,
    PlanTable,
    RowWriter,
    image_schema,
    reject_schema,
    tar_schema,
    write_names,
)
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.promise import ensure_writable

PROGRESS_EVERY = 100
MAX_RACES = 20  # lost in a row to other drivers


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """What planning found.

    Attributes:
        number: of the part written last, None if nothing was new in it.
        num_new_images: planned since this planning began.
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
    """Plans what is new in the inputs, as one part; unchanged inputs make no new plan.

    Args:
        store: the dataset.
        inputs: as for list_inputs.
        shard_size: images in a shard.
        limit: plan no more images than this, the first of the inputs; those planned before count.
        num_threads: files or tars read at once.
        photograph: the field of a sample that is the photograph; None goes by grouped.py's rule.
        progress: called now and then with the number of inputs looked at.

    Raises:
        ValueError, StorageError: as `plan_parts`.
    """
    *_, summary = plan_parts(
        store,
        inputs,
        shard_size=shard_size,
        limit=limit,
        num_threads=num_threads,
        photograph=photograph,
        progress=progress,
    )
    return summary


def plan_parts(
    store: ObjectStore,
    inputs: Sequence[str],
    *,
    shard_size: int,
    limit: int | None = None,
    num_threads: int = 8,
    photograph: str | None = None,
    progress: Callable[[int], None] | None = None,
    due: Callable[[], bool] = lambda: False,
) -> Generator[PlanSummary]:
    """Plans what is new in the inputs, in parts; gives what was found so far after each, and at the end.

    Args:
        store, inputs, shard_size, limit, num_threads, photograph, progress: see `make_plan`.
        due: whether a part is to be written now; asked between two shards.

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

    num_new_images = num_races = 0
    while num_races < MAX_RACES:
        planning = _Planning(store, load_plans(store), listing, shard_size, limit, photograph)
        for summary in planning.parts(num_threads, progress, due):
            num_races = 0
            yield replace(summary, num_new_images=num_new_images + summary.num_new_images)
        if not planning.overtaken:
            return
        num_races, num_new_images = num_races + 1, num_new_images + planning.num_new_images
        listing = list_inputs(inputs, dataset_root=store.root, photograph=photograph)
    raise StoreUnavailable(f"{store.root}: {MAX_RACES} other plans were written meanwhile; try again later")


class _Planning:
    """One pass over the inputs.

    Attributes:
        overtaken: another driver's images were planned first, so the pass ended early.
        num_new_images: in the parts that it wrote.
    """

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
        self._ledger = Ledger(plan)
        self._earlier = {digest(reject.source) for reject in plan.iter_rejects()}
        self._num_counted = 0
        self._counted_source, self._num_of_source = "", 0
        self._examples: list[PlanReject] = []
        self._skipped_before = Counter[str]()
        self.overtaken, self.num_new_images = False, 0
        self._rejected: set[bytes] = set()
        self._begin_part()

    def _begin_part(self) -> None:
        """Nothing is in the next part yet; rejects of the one before are now an earlier plan's."""
        self._earlier |= self._rejected
        self._rejected = set()
        self._num_images = 0
        self._reasons, self._resolved_reasons, self._resolved = Counter[str](), Counter[str](), list[str]()

    def parts(
        self, num_threads: int, progress: Callable[[int], None] | None, due: Callable[[], bool]
    ) -> Iterator[PlanSummary]:
        """Plans and writes; a summary after each part and at the end, until overtaken.

        Raises:
            InputError: no image could be read from all of the inputs.
            StorageError: the plan cannot be written.
        """
        with closing(
            examine(self._listing, self._ledger, num_threads, photograph=self._photograph)
        ) as examined:
            found = self._bounded(examined, progress)
            first: Examined | None = None
            while True:
                part, first = self._fill(found, first, due)
                number = self._write(part)
                if self.overtaken:
                    return
                yield self._summary(number)
                if first is None:
                    return
                self._begin_part()

    def _fill(
        self, found: Iterator[Examined], first: Examined | None, due: Callable[[], bool]
    ) -> tuple[PlanPart, Examined | None]:
        """The next part, its tables written; and the image that the one after it begins with, if any.

        Raises:
            InputError: no image could be read from all of the inputs.
        """
        base = f"{FOLDER}/{len(self._plan.parts) + 1:06d}.{new_attempt()}"
        next_one: Examined | None = None
        with ExitStack() as tables:
            rows = tables.enter_context(RowWriter(self._store, f"{base}.parquet", image_schema()))
            rejects = tables.enter_context(RowWriter(self._store, f"{base}.rejects.parquet", reject_schema()))
            tars = tables.enter_context(RowWriter(self._store, f"{base}.tars.parquet", tar_schema()))
            for one in found if first is None else chain([first], found):
                if isinstance(one, HashedImage) and self._is_full() and due():
                    next_one = one
                    break
                self._take(one, rows, rejects, tars)
            if self._plan.num_images + self._num_images == 0:
                raise self._nothing_usable()
        return self._part(rows.written, tuple(rows.group_shards), rejects.written, tars.written), next_one

    def _is_full(self) -> bool:
        """Whether a part that ended here would end with a whole shard."""
        return self._num_images > 0 and self._num_images % self._shard_size == 0

    def _write(self, part: PlanPart) -> int | None:
        """Makes the part exist; gives its number, None if there is nothing new in it or it was overtaken."""
        if part.rows is None and part.rejects is None:
            self._discard(part)
            return None
        for _ in range(MAX_RACES):
            check_lease(self._store)
            if write_part(self._store, part):
                self._plan = replace(self._plan, parts=(*self._plan.parts, part))
                self.num_new_images += part.num_images
                return part.number

            # Marks of images that are planned move no image: the part takes the next number
            self._plan = load_plans(self._store)
            if any(one.rows or one.rejects for one in self._plan.parts[part.number - 1 :]):
                break
            part = replace(part, number=len(self._plan.parts) + 1)
        self._discard(part)
        self.overtaken = True
        return None

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
            shard = self._plan.num_shards + self._num_images // self._shard_size
            image_id = self._plan.num_images + 1 + self._num_images
            row = {**vars(found), "key": image_key(image_id), "image_id": image_id, "shard": shard}
            rows.add(row, cut=self._num_images % self._shard_size == 0)
            self._ledger.add_image(
                found.source, found.member, found.offset, found.etag, found.sha256, image_id
            )
            self._resolve(label)
            self._num_images += 1
            self._count(found.source, 1)

    def _reject(
        self, source: str, member: str, offset: int, etag: str, reason: str, detail: str, rejects: RowWriter
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
        self._rejected.add(digest(label))

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
        where, skipped = ", ".join(self._listing.inputs), self._listing.skipped
        if not self._examples and has_only_other_fields(self._photograph, skipped):
            return no_such_field(where, self._photograph, skipped)
        told = "; ".join(f"{one.source}: {one.reason}, {one.detail}" for one in self._examples)
        seen = f"found {most_of(skipped)}" if skipped else "none found"
        return InputError(f"{where}: no image in it can be used ({told or seen})")

    def _part(
        self,
        rows: PlanTable | None,
        group_shards: tuple[int, ...],
        rejects: PlanTable | None,
        tars: PlanTable | None,
    ) -> PlanPart:
        skipped = self._listing.skipped - self._skipped_before
        self._skipped_before = self._listing.skipped.copy()
        stem = f"{FOLDER}/{len(self._plan.parts) + 1:06d}"
        resolved, resolved_table = write_names(self._store, stem, "resolved", self._resolved)
        return PlanPart(
            number=len(self._plan.parts) + 1,
            inputs=self._listing.inputs,
            limit=self._limit,
            shard_size=self._shard_size,
            first_shard=self._plan.num_shards,
            num_shards=-(-self._num_images // self._shard_size),
            first_image_id=self._plan.num_images + 1,
            num_images=self._num_images,
            rows=rows,
            row_group_shards=group_shards,
            rejects=rejects,
            rejects_by_reason=dict(sorted(self._reasons.items())),
            resolved=resolved,
            resolved_table=resolved_table,
            resolved_by_reason=dict(sorted(self._resolved_reasons.items())),
            tars=tars,
            skipped_by_ending=dict(sorted(skipped.items())),
        )

    def _summary(self, number: int | None) -> PlanSummary:
        return PlanSummary(
            number=number,
            num_new_images=self.num_new_images,
            num_images=self._plan.num_images,
            num_shards=self._plan.num_shards,
            num_rejects=self._plan.num_rejects,
            rejects_by_reason=self._plan.rejects_by_reason,
            skipped_by_ending=dict(sorted(self._listing.skipped.items())),
        )
