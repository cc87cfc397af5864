"""What `verify` looks at of people's saves: every one can be read, none of a picture's numbers is missing.

A loss of a picture's last save leaves no gap; where a generation was published with it, its `review` column
names the save that it was made from, and a deep check looks for that.

It does not know: what a mask is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing

from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.join import read_row
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.saves import read_save, save_name, saved_numbers
from maskmill.storage.errors import StorageError
from maskmill.storage.json_text import load_json
from maskmill.storage.plan.marks import forget_command
from maskmill.storage.plan.plan import Plan
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.in_order import in_order
from maskmill.storage.stores.open import is_silence

THREADS = 16
RESTORE = "put it back from a backup or an older version of the bucket: nothing else holds what it said"
COLUMN = "review"


def save_problems(
    store: ObjectStore, plan: Plan, generation: Generation | None, *, deep: bool
) -> Iterator[str]:
    """What is gone or damaged of what people made, a sentence each.

    Args:
        store: the dataset.
        plan: as it is now; forgotten pictures have no saves.
        generation: the newest that can be read.
        deep: also look for the saves that its review column was made from.

    Raises:
        AccessDenied, StoreUnavailable: the store doesn't let us look.
    """
    there = saved_numbers(store)

    def look(key: str) -> Iterator[str]:
        """One picture's saves."""
        numbers = there[key]
        for number in sorted(set(range(1, max(numbers) + 1)) - set(numbers)):
            yield f"{store.root}/{save_name(key, number)} is gone; {RESTORE}"
        for number in numbers:
            try:
                read_save(store, key, number)
            except StorageError as exc:
                if is_silence(store.root, exc):
                    raise
                yield f"{exc}; {RESTORE}"
        if key in plan.forgotten:
            yield f"{store.root}: {key} was forgotten and has saves; run {forget_command(store, [key])}"

    with closing(in_order(there, look, THREADS)) as found:
        yield from found
    for row in generation.rows() if generation is not None and deep else ():
        if row.column == COLUMN:
            try:
                yield from _unnamed(store, row, there, plan)
            except StorageError as exc:
                if is_silence(store.root, exc):
                    raise  # damage of the column itself is told with its shard


def _unnamed(
    store: ObjectStore, row: GenerationRow, there: Mapping[str, Collection[int]], plan: Plan
) -> Iterator[str]:
    """Saves that a shard's reviews were made from and that are gone."""
    for sample in read_row(store, row):
        record = load_json(sample.files["json"])
        number = record["review"].get("save") if isinstance(record, dict) and "review" in record else None
        if (
            number is not None
            and number not in there.get(sample.key, ())
            and sample.key not in plan.forgotten
        ):
            yield (
                f"{store.root}: save {number} of {sample.key} is gone, though the review column was made "
                f"from it; {RESTORE}"
            )
