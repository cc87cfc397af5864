"""Write faults beneath a local store: in the calls through which its bytes become durable.

    refused_write     the sync of a file fails (EIO)
    full_disk         it fails for lack of space (ENOSPC)
    torn_write        half of the bytes reach the disk, then the process is gone
    dies_at_commit    a commit record is linked into place, then the process is gone

What it doesn't know: file systems that lose what they said they synced.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from typing import Any

from maskmill.workers.drill.orders import Orders

REFUSED_WRITE = "refused_write"
FULL_DISK = "full_disk"
TORN_WRITE = "torn_write"
DIES_AT_COMMIT = "dies_at_commit"
KINDS = frozenset({REFUSED_WRITE, FULL_DISK, TORN_WRITE, DIES_AT_COMMIT})


def install(orders: Orders, root: str) -> None:
    """From now on this process meets the orders when it writes under `root`. Cannot be undone.

    Args:
        orders: which writes are to go wrong, and how.
        root: of the dataset, a local path.

    Raises:
        OSError: later, from the writes that meet an order.
    """
    sync, link = os.fsync, os.link

    def faulty_sync(handle: Any) -> None:
        """`os.fsync`, or what an order says. Raises OSError: no space, or refused."""
        number = handle if isinstance(handle, int) else handle.fileno()
        if _is_file_under(number, root) and (order := orders.take(KINDS - {DIES_AT_COMMIT})):
            if order.kind == TORN_WRITE:
                os.ftruncate(number, os.fstat(number).st_size // 2)
                sync(number)
                _die()
            raise OSError(errno.ENOSPC if order.kind == FULL_DISK else errno.EIO, f"drill: {order.kind}")
        sync(number)

    def faulty_link(source: Any, target: Any, **options: Any) -> None:
        """`os.link`, after which the process may die."""
        link(source, target, **options)
        place = os.fspath(target)
        if place.startswith(root) and "/commits/" in place and orders.take({DIES_AT_COMMIT}):
            _die()

    setattr(os, "fsync", faulty_sync)  # noqa: B010 - by name, as the types are wider than os's
    setattr(os, "link", faulty_link)  # noqa: B010


def _is_file_under(handle: int, root: str) -> bool:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        return False
    return os.readlink(f"/proc/self/fd/{handle}").startswith(f"{root}/")  # noqa: PTH115


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
