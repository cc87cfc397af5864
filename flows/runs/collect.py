"""The run `gc`: removes what nothing names any more. The writer's lock is held while anything is removed."""

from __future__ import annotations

from collections.abc import Sequence

from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.holding import writing
from maskmill.storage.care.garbage import Garbage, find_garbage, remove_garbage
from maskmill.storage.drivers.lease import store_clock
from maskmill.storage.errors import InputError
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store


def look_for_garbage(dataset: str, *, versions: bool) -> list[Garbage]:
    """What `collect` would remove; changes nothing.

    Args:
        dataset: its root.
        versions: also whole column versions that no generation names.

    Raises:
        InputError: there is no dataset.
    """
    store = open_store(dataset)
    if not load_plans(store).parts:
        raise InputError(f"{dataset}: there is no dataset here, nothing is planned; is the path right?")
    return find_garbage(store, versions=versions, clock=store_clock(store))


def collect(dataset: str, found: Sequence[Garbage]) -> None:
    """Removes what `look_for_garbage` found.

    Raises:
        WriterBusy: a writer works on the dataset.
        StorageError: something cannot be removed; the same command goes on.
    """
    with writing(dataset, "gc"):
        watcher().step("removing")
        remove_garbage(
            open_store(dataset), list(found), progress=lambda number: watcher().count(number, len(found))
        )
