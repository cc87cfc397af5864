"""The run `gc`: removes what nothing names any more. The writer's lock is held while anything is removed."""

from __future__ import annotations

from collections.abc import Sequence

from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.holding import writing
from maskmill.storage.care.garbage import Garbage, find_garbage, remove_garbage
from maskmill.storage.drivers.one_writer import COLLECTOR
from maskmill.storage.plan.plan import planned
from maskmill.storage.stores.open import open_store


def look_for_garbage(dataset: str, *, versions: bool) -> list[Garbage]:
    """What `collect` would remove; changes nothing.

    Args:
        dataset: its root.
        versions: also whole column versions that no generation names.

    Raises:
        NoSuchThing: there is no dataset.
    """
    store = open_store(dataset)
    planned(store)
    return find_garbage(store, versions=versions)


def collect(dataset: str, shown: Sequence[Garbage], *, versions: bool) -> list[Garbage]:
    """Removes what `look_for_garbage` found and still finds: hours may lie between the two looks.

    Args:
        dataset: its root.
        shown: what was found, and agreed to.
        versions: as it was looked for.

    Returns:
        What was removed.

    Raises:
        LeaseLost: this process slept meanwhile, so what it found may be in use again; the rest stays.
        WriterBusy: a writer works on the dataset.
        StorageError: something cannot be removed; the same command goes on.
    """
    store = open_store(dataset)
    with writing(dataset, COLLECTOR) as own_id:
        watcher().step("looking again")
        names = {one.name for one in shown}
        again = find_garbage(store, own_id=own_id, versions=versions)
        found = [one for one in again if one.name in names]

        watcher().step("removing", "object")
        remove_garbage(store, found, progress=lambda number: watcher().count(number, len(found)))
    return found
