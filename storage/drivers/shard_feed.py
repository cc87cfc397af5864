"""Which shard this driver works next: what is planned so far, less what is done and what others have in hand.

    fresh    not yet handed out; more come while the plan is still being made
    held     other drivers claimed them: looked at again from time to time, and dropped once they are done,
             taken over once their driver is dead

It is asked for one shard at a time, for a worker that is free: no driver sits on shards that another could
work. What a worker will probably have next (`likely`) is foretold and not claimed; that it comes true beside
other drivers is because each works a stretch of its own: who meets another one's claim goes on elsewhere. It
never waits: `next` says that there is none now, `ended` that there will be none.

It does not know: workers, and what a shard is.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping

from maskmill.storage.drivers.shard_claims import ShardClaims
from maskmill.storage.errors import StoreUnavailable

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
MOST_TRIES = 64  # claims at a time: who asks has workers to look after
MOST_LOOKS = 8  # at other drivers' shards, at a time; the rest have their turn later
JUMP = 0.618  # of what is left, where another driver is met: the golden section spreads any number of them


class ShardFeed:
    """See the file's header.

    Args:
        shards: shard -> images, in the order to be worked.
        claims: this driver's; None claims nothing, as of one that has the dataset to itself.
        done: the shards that are done, whoever did them; asked where others hold some.
        more: shards planned since it was last asked, and whether more may come.
        waiting: told a sentence when shards are waited for that another driver holds.
        clock: seconds.

    Attributes:
        shards: all that this driver came to know of, less those that others did.
    """

    def __init__(
        self,
        shards: Mapping[int, int],
        *,
        claims: ShardClaims | None = None,
        done: Callable[[], Collection[int]] = tuple,
        more: Callable[[], tuple[Mapping[int, int], bool]] | None = None,
        waiting: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shards = dict(shards)
        self._fresh = deque(shards)
        self._held: deque[int] = deque()
        self._claims, self._done, self._more, self._waiting = claims, done, more, waiting
        self._clock, self._looked_s = clock, float("-inf")
        self._told = False

    @classmethod
    def of(cls, shards: Iterable[int]) -> ShardFeed:
        """A feed of these shards and no others."""
        return cls(dict.fromkeys(shards, 0))

    @property
    def ended(self) -> bool:
        """Whether no shard will be handed out any more, unless one is begun again."""
        return not self._fresh and not self._held and self._more is None

    @property
    def complete(self) -> bool:
        """Whether `shards` are all there will be: the plan is made."""
        return self._more is None

    def next(self, wish: int | None = None, spare: Collection[int] = ()) -> int | None:
        """A shard for this driver to work; None if there is none now.

        Args:
            wish: is tried first, if it was not handed out.
            spare: are handed out last.

        Raises:
            DamagedObject: the plan cannot be read.
        """
        for _ in range(min(len(self._fresh), MOST_TRIES)):
            shard = self._picked(wish, spare)
            if self._claims is None or self._claims.take(shard):
                return shard
            self._held.append(shard)
            if shard != wish:
                self._fresh.rotate(-round(JUMP * len(self._fresh)))
            wish = None
        if self._fresh or self.ended or self._clock() - self._looked_s < LOOK_EVERY_S:
            return None
        self._looked_s = self._clock()
        try:
            return self.next(spare=spare) if self._take_more() else self._left_by_others()
        except StoreUnavailable as exc:  # a driver that is cut off for long loses its lease
            log.warning("no look at what is left to do, trying again: %s", exc)
            return None

    def likely(self, spare: Collection[int] = ()) -> int | None:
        """What will probably be handed out next, without a claim on it; None of `spare`."""
        return next((shard for shard in self._fresh if shard not in spare), None)

    def give_up(self, shard: int) -> None:
        """Lets another driver try a shard that failed here."""
        if self._claims is not None:
            self._claims.release(shard)

    def begin_again(self, left: Iterable[int]) -> None:
        """Hands these out once more: the workers that had them are gone."""
        self._fresh.extendleft(sorted(set(left) - set(self._fresh) - set(self._held), reverse=True))

    def _picked(self, wish: int | None, spare: Collection[int]) -> int:
        """Takes one out of `_fresh`, which has some."""
        shard = wish if wish is not None and wish in self._fresh else self.likely(spare)
        if shard is None:
            return self._fresh.popleft()
        self._fresh.remove(shard)
        return shard

    def _take_more(self) -> bool:
        """Whether the plan has more than before."""
        if self._more is None:
            return False
        new, going = self._more()
        self.shards.update(new)
        self._fresh.extend(new)
        if not going:
            self._more = None
        return bool(new)

    def _left_by_others(self) -> int | None:
        """A shard whose driver died; drops those that are done."""
        if self._claims is None or not self._held:
            return None
        done = self._done()
        for shard in [shard for shard in self._held if shard in done]:
            del self.shards[shard]
        self._held = deque(shard for shard in self._held if shard not in done)

        living = self._claims.living()
        for _ in range(min(len(self._held), MOST_LOOKS)):
            shard = self._held.popleft()
            holder = self._claims.take_over(shard, living)
            if holder is None:
                self._looked_s = float("-inf")  # there may be more of that driver's
                return shard
            self._held.append(shard)
            if not self._told and self._more is None:
                self._told = True
                self._waiting(
                    f"what is left is in other hands: {len(self._held)} shards, of {holder.owner} on "
                    f"{holder.host}, process {holder.pid}; waiting until they are done"
                )
        return None
