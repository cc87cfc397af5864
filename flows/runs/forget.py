"""The run `forget`: removes images and all that came from them. The lock is storage's own to take: the keys
are marked first, whoever works on the dataset, and what holds their bytes goes once it has the lock."""

from __future__ import annotations

from collections.abc import Collection

from maskmill.storage.care.forget import ForgetPlan, ForgetReport, plan_forget
from maskmill.storage.care.forget import forget as forget_images
from maskmill.storage.clock import now_utc
from maskmill.storage.stores.open import open_store


def look_before_forgetting(dataset: str, keys: Collection[str]) -> ForgetPlan:
    """What `forget` would do; changes nothing.

    Raises:
        InputError: a key was never planned, or none is given.
    """
    return plan_forget(open_store(dataset), keys)


def forget(dataset: str, keys: Collection[str]) -> ForgetReport:
    """Removes images from every column, publishes, and removes what held them. Safe to repeat.

    Raises:
        WriterBusy, DatasetError: others are at work; the keys are marked, and the same command finishes
            later.
        InputError: a key was never planned.
        DamagedObject, ObjectNotFound: a shard cannot be read; `verify --repair` comes first.
    """
    return forget_images(open_store(dataset), keys, created_utc=now_utc())
