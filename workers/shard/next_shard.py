"""The first images of the shard that a worker will probably have next, taken in while it finishes the last.

    shard 7:  read, decode ........ | models on the last pictures
    shard 8:                        | read, decode the first few  ->  its turn begins with them

Without it the models wait at each shard's beginning for a store's first byte and a first decoding. A guess
(`ShardTask.likely_next`) costs a few images' memory and, where it is wrong, their decoding. Only what is
good is kept, from the first image on without a gap: whatever goes wrong ahead of its turn, the turn itself
meets again, where it counts and is told.

It knows sources alone: a shard whose images are committed reads those, as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.plan.sources import PlannedImage
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.shard.meter import Meter
from maskmill.workers.shard.taken_in import TakenIn, normalised, sources_of


@dataclass(frozen=True)
class Prepared:
    """An image taken in ahead of its turn; `meter` has what it cost and what is remarkable of it."""

    planned: PlannedImage
    taken: TakenIn
    meter: Meter

    def charge(self, meter: Meter) -> TakenIn:
        """The picture, its costs and remarks added to the turn's meter."""
        meter.add_seconds(self.meter.seconds_by_step())
        for name, count in self.meter.remarks().items():
            for _ in range(count):
                meter.remark(name)
        return self.taken


class NextShard:
    """What a worker has prepared: at most one shard's first images, in a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "next-shard")
        self._shard: int | None = None
        self._prepared: list[Prepared] = []
        self._work: Future[None] | None = None

    def begin(
        self,
        shard: int,
        planned: Callable[[], Sequence[PlannedImage]],
        images: ColumnVersion,
        ingest: IngestSettings,
    ) -> None:
        """Takes in the first images of `shard`, and returns at once; what was prepared before goes.

        Args:
            shard: that will probably be next.
            planned: reads which they are, in the thread: at least one, and as many as memory may hold.
            images: the images column: where it has the shard, nothing is done.
            ingest: how images are taken in.
        """
        self.take(None)
        self._shard, self._prepared = shard, []
        self._work = self._thread.submit(_prepare, self._prepared, shard, planned, images, ingest)

    def take(self, shard: int | None) -> list[Prepared]:
        """What is prepared of a shard, in order from its first image; waits for what is in hand.

        Afterwards nothing is prepared, whether the guess was right or not.
        """
        work, prepared, ours = self._work, self._prepared, self._shard
        self._shard, self._prepared, self._work = None, [], None
        if work is None or work.cancel() or shard is None or shard != ours:
            return []
        work.exception()  # what went wrong ends the list: the turn meets it again
        return prepared


def _prepare(
    prepared: list[Prepared],
    shard: int,
    planned: Callable[[], Sequence[PlannedImage]],
    images: ColumnVersion,
    ingest: IngestSettings,
) -> None:
    """In the thread: appends image after image until one goes wrong."""
    if images.record(shard) is not None:
        return
    with closing(sources_of(planned(), 0, max_bytes=ingest.max_bytes)) as sources:
        for source in sources:
            meter = Meter()
            prepared.append(Prepared(source.planned, normalised(source, ingest, meter), meter))
