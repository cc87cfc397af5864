"""May a dataset be kept here? Proved before work starts, by writing and removing small objects.

Everything rests on put-if-absent: plans, commits, generations. So once a dataset the store has to show that
of two writers of one name the second one loses, and a record says that it did.

    locks/put-if-absent.json

It does not know: the store's other promises; `maskmill probe` tries them all (suite.py).
"""

from __future__ import annotations

import uuid

from maskmill.storage.errors import AccessDenied, ObjectNotFound, UnfitStore
from maskmill.storage.stores.base import ObjectStore

PROMISE = "locks/put-if-absent.json"
"""Says that the store was seen to keep the promise; written once a dataset."""


def ensure_writable(store: ObjectStore) -> None:
    """Proves, by writing and removing small objects, that a dataset can be kept here, before work starts.

    Raises:
        AccessDenied, BucketNotFound, OutOfSpace, StoreUnavailable: with the place and the cure.
        UnfitStore: the second writer won too.
    """
    name = f"drivers/probe-{uuid.uuid4().hex}"
    if not store.put_if_absent(name, name.encode()):
        raise AccessDenied(
            f"{store.root}: a fresh object came back with other bytes; this store cannot be trusted"
        )
    try:
        if not _is_there(store, PROMISE):
            _prove_promise(store, name)
    finally:
        store.delete(name)


def _prove_promise(store: ObjectStore, taken: str) -> None:
    """A second writer of a name that is taken must lose, and leave what is there."""
    won = store.put_if_absent(taken, b"the second writer's\n")
    if won or store.read(taken) != taken.encode():
        raise UnfitStore(
            f"{store.root}: this store ignores the condition of a conditional write (`If-None-Match: *`): of "
            "two writers of one name both won. Two drivers would overwrite each other's plans and lose "
            "images, so no dataset is kept here. Use a store that keeps it (AWS S3, Ceph, MinIO, a local "
            "disk), or see whether a proxy in between drops the header"
        )
    store.put(PROMISE, b'{"put_if_absent": "the second writer lost"}\n')


def _is_there(store: ObjectStore, name: str) -> bool:
    try:
        store.stat(name)
    except ObjectNotFound:
        return False
    return True
