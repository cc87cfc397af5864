"""Bad samples: the one place where they are caught, by listed types, and get their reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from maskmill.pipeline.machine.batches import is_out_of_memory
from maskmill.pipeline.unfit import UnfitPicture
from maskmill.storage.dataset.records import Reject
from maskmill.storage.errors import (
    InputError,
    NotAFile,
    ObjectNotFound,
    SourceChanged,
    SourceSilent,
    SourceTooLarge,
)
from maskmill.workers.foreign.images.codec import DecodeError
from maskmill.workers.run.spec import ShardTask

T = TypeVar("T")

CRASHED = "crashed_the_worker"
GONE = ("source_missing", "source_changed", "not_a_file", "unreadable")


def or_reject(task: ShardTask, column: str, key: str, work: Callable[[], T]) -> T | Reject:
    """What `work` gives, or why the sample can't be used. Any other error passes, with the image's key."""
    if task.skip_keys.get(key) == column:
        return Reject(key, CRASHED, "workers died whenever they had this image in hand")
    try:
        with in_hand(task, column, key):
            return work()
    except (DecodeError, UnfitPicture) as error:
        return Reject(key, error.reason, error.detail)
    except ObjectNotFound as error:
        return Reject(key, "source_missing", str(error))
    except SourceChanged as error:
        return Reject(key, "source_changed", str(error))
    except NotAFile as error:
        return Reject(key, "not_a_file", str(error))
    except SourceSilent as error:
        return Reject(key, "unreadable", str(error))
    except SourceTooLarge as error:
        return Reject(key, "too_many_pixels", str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return Reject(key, "out_of_memory", str(error).splitlines()[0] if str(error) else "no memory left")


@contextmanager
def in_hand(task: ShardTask, column: str, keys: str) -> Iterator[None]:
    """An error that comes out of it says which image it met."""
    try:
        yield
    finally:
        error = sys.exc_info()[1]
        if error is not None:
            error.add_note(f"while making {column} of image {keys} in shard {task.shard}")


def check_sources(task: ShardTask, rejects: Sequence[Reject], num_planned: int) -> None:
    """A shard that lost every source is not committed as empty: a disk isn't mounted, more likely.

    Raises:
        InputError: all of its images are gone or changed.
    """
    gone = [reject for reject in rejects if reject.reason in GONE]
    if num_planned > 1 and len(gone) == num_planned:
        raise InputError(
            f"all {num_planned} images of shard {task.shard} are gone or changed since planning "
            f"({gone[0].detail}): bring the input back and run again, or start a new dataset"
        )
