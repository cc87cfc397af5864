"""The rows of the next generation: what a run made where it is committed, the generation before elsewhere.

Per shard: every column of the run in its new version if that is committed, else as the parent has it;
columns that the run does not make (imports, reviews, words of a run without them) as the parent has them. A
shard's rows must fit together: a row whose record was made from another record than its neighbour's is
given up, and with it what was made from it; if that would lose a column that the run makes, the shard stays
as the parent has it.

It doesn't know: what a column means, or why a shard is not done.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from maskmill.storage.dataset.columns import making_order
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.join import read_record
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.records import NOT_ANNOTATED, CommitRecord, first_rejects
from maskmill.storage.stores.base import ObjectStore

Rows = dict[str, GenerationRow]
THREADS = 16


@dataclass(frozen=True)
class Merged:
    """Rows of a generation to be.

    Attributes:
        rows: by shard and column.
        old_shards: by column of the run: shards that still have another version than the run's.
        dropped: by column: shards whose row no longer fits what it was made from, and is left out.
    """

    rows: tuple[GenerationRow, ...]
    old_shards: Mapping[str, int]
    dropped: Mapping[str, int]


def merge_rows(
    store: ObjectStore, made: Mapping[str, Sequence[GenerationRow]], parent: Generation | None
) -> Merged:
    """The rows that a run publishes.

    Args:
        store: the dataset.
        made: by column of the run, in the order they are made: what is committed of its version; rows that
            were made from each other (`generations.check_inputs`).
        parent: the generation before.

    Raises:
        DamagedObject: a record that has to be looked at cannot be read.
    """
    new: defaultdict[int, Rows] = defaultdict(dict)
    for column, rows in made.items():
        for row in rows:
            new[row.shard][column] = row
    old: defaultdict[int, Rows] = defaultdict(dict)
    for row in parent.rows() if parent is not None else ():
        old[row.shard][row.column] = row
    merged: list[GenerationRow] = []
    stale, dropped = Counter[str](), Counter[str]()
    shards = sorted(new.keys() | old.keys())
    with ThreadPoolExecutor(THREADS) as threads:
        chosen = threads.map(lambda s: _merge_shard(store, new.get(s, {}), old.get(s, {}), set(made)), shards)
        for shard, kept in zip(shards, chosen, strict=True):
            merged += [kept[column] for column in sorted(kept)]
            stale.update(c for c in made if c in kept and kept[c] != new.get(shard, {}).get(c))
            dropped.update(old.get(shard, {}).keys() - kept.keys())
    return Merged(tuple(merged), dict(stale), dict(dropped))


def _merge_shard(store: ObjectStore, new: Rows, old: Rows, made: set[str]) -> Rows:
    rows = {**old, **new}
    if rows in (old, new):
        return rows  # nothing is mixed
    fitting = _fitting(store, rows, new)
    lost = (old.keys() & made) - fitting.keys()
    return old if lost else fitting


def _fitting(store: ObjectStore, rows: Rows, new: Rows) -> Rows:
    """The rows less the old ones that were made from another record than the one beside them."""
    kept = dict(rows)
    for column in _in_order(rows.keys() - new.keys()):
        inputs = read_record(store, rows[column]).inputs
        if any(
            source in rows and (source not in kept or kept[source].record_sha256 != sha256)
            for source, sha256 in inputs.items()
        ):
            del kept[column]
    return kept


def _in_order(columns: Iterable[str]) -> list[str]:
    return making_order(columns)


def count_rows(store: ObjectStore, rows: Sequence[GenerationRow]) -> dict[str, float]:
    """A generation's totals: samples by column, masks, and images annotated or rejected.

    An image counts as annotated where its shard has masks and no column rejects it; one that an imported file
    doesn't name is not rejected, and annotated where it has masks beside.
    """
    by_shard: dict[int, Rows] = defaultdict(dict)
    for row in rows:
        by_shard[row.shard][row.column] = row
    totals = Counter[str]()
    for shard in by_shard.values():
        columns = [shard[column] for column in _in_order(shard)]
        records = _rejecting(store, columns)
        unnamed = {
            reject.key
            for record in records
            if record.column == "masks"
            for reject in record.rejects
            if reject.reason == NOT_ANNOTATED
        }
        found = first_rejects(records).values()
        rejects = len({reject.key for reject in found if reject.reason != NOT_ANNOTATED})
        totals.update({row.column: row.num_written for row in columns if row.column != "masks"})
        totals["rejected"] += rejects
        masks = shard.get("masks")
        if masks is not None:
            totals["masks"] += masks.index.num_samples if masks.index is not None else 0
            totals["annotated"] += columns[0].num_read - rejects - len(unnamed)
    return {"annotated": 0, "rejected": 0, "masks": 0, **totals}


def _rejecting(store: ObjectStore, rows: Iterable[GenerationRow]) -> list[CommitRecord]:
    return [read_record(store, row) for row in rows if row.num_rejects]
