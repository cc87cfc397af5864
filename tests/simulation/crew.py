"""Who works for a driver that plans in parts: its planning thread, and workers handed a shard at a time.

It does not know: what a plan and a shard are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from maskmill.storage.errors import StoreUnavailable
from tests.simulation.machine.store import SimStore
from tests.simulation.machine.world import Driver, World


@dataclass
class Planner:
    """A driver's planning thread, as its driver sees it."""

    thread: Driver

    @property
    def going(self) -> bool:
        """Whether more shards may come."""
        return not self.thread.ended

    def check(self) -> None:
        """Its error is the run's."""
        if self.thread.error is not None:
            raise StoreUnavailable(f"planning failed: {self.thread.error}")


@dataclass
class Hand:
    """A worker's process.

    Attributes:
        work: its turns at a shard.
        shards: what it has in hand, one at most.
        dismissed: it ends once it has nothing in hand.
    """

    work: Callable[[SimStore, int], None]
    shards: list[int] = field(default_factory=list)
    dismissed: bool = False

    def pull(self, world: World) -> Callable[[SimStore], None]:
        """What its process does."""

        def run(store: SimStore) -> None:
            """Until it is dismissed."""
            while self.shards or not self.dismissed:
                if self.shards:
                    self.work(store, self.shards[0])
                    self.shards.clear()
                else:
                    world.sleep(2.0)

        return run
