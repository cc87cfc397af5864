"""How a plan is cut: images into shards, where nobody says how many, and shards into parts of the plan.

    (1)  a shard is at most ten minutes' work, by the seconds an image took in this dataset; MOST images where
         none is made
    (2)  at least two shards a worker, so that none idles while another finishes
    (3)  a part is written every PART_S, and later each time planning has taken a tenth longer: workers start
         soon, wait for a tenth of the time at most where planning is what takes long, and the 75 minutes
         that 4.5 TB take make some fifty parts

The sizes are written into the plan, so they are decided once; they change no image's annotations. It knows
nothing of settings and models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from maskmill.storage.dataset.columns import list_versions
from maskmill.storage.plan.walk import InputFile, InputProblem
from maskmill.storage.stores.base import ObjectStore

MOST = 256
"""Images of a shard, at most, before speed is known; ten minutes at two seconds an image."""

WORK_S = 600.0
"""A shard's work: what a lost worker costs at most."""

SHARDS_A_WORKER = 2

PART_S = 10.0
"""Of planning, before its first part is written."""

LONGER = 0.1

TAR_BYTES_AN_IMAGE = 100_000
"""What an image in a tar is taken to have; less than most have."""


def cut(num_images: int | None, num_workers: int | None, seconds_an_image: float | None) -> int:
    """Images of a shard.

    Args:
        num_images: to be planned; None is many.
        num_workers: that will annotate; None where that isn't known.
        seconds_an_image: measured; None where nothing is.
    """
    size = MOST if seconds_an_image is None else int(WORK_S / max(seconds_an_image, 1e-3))  # (1)
    if num_images is not None and num_workers is not None:
        size = min(size, math.ceil(num_images / (SHARDS_A_WORKER * num_workers)))  # (2)
    return max(1, min(size, 10 * MOST))


def count_up_to(listing: Iterable[InputFile | InputProblem], most: int) -> int | None:
    """About how many images the inputs hold, None where it is more than `most`; no file is opened.

    Args:
        listing: a fresh one; it is walked as far as needed.
        most: where counting ends.
    """
    count = 0
    for found in listing:
        if isinstance(found, InputFile):
            count += max(1, found.size_bytes // TAR_BYTES_AN_IMAGE) if found.kind == "tar" else 1
        if count > most:
            return None
    return count


def seconds_an_image(store: ObjectStore, column: str) -> float | None:
    """What a worker last took for an image of a column, by the newest record among versions.

    Args:
        store: the dataset.
        column: "masks", ...
    """
    newest = None
    for version in list_versions(store, column):
        shards = version.committed()
        record = version.record(max(shards)) if shards else None
        if record is None or not record.num_read:
            continue
        if newest is None or record.created_utc > newest.created_utc:
            newest = record
    if newest is None:
        return None
    seconds = sum(newest.seconds_by_step.values()) / newest.num_read
    return seconds or None


class PartClock:
    """Says when a part of the plan is to be written (3).

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = self._last_s = clock()

    def __call__(self) -> bool:
        """Whether it is time; then the next part begins."""
        now_s = self._clock()
        if now_s - self._last_s < max(PART_S, LONGER * (now_s - self._began_s)):
            return False
        self._last_s = now_s
        return True
