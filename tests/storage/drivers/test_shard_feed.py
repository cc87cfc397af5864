"""What a driver works next: fresh shards, those of a plan in the making, and at last what others leave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from maskmill.storage.drivers.lease import announce
from maskmill.storage.drivers.shard_claims import ShardClaims
from maskmill.storage.drivers.shard_feed import LOOK_EVERY_S, MOST_TRIES, ShardFeed
from maskmill.storage.errors import StoreUnavailable
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store

RUN = {"masks": "1" * 16}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def drained(feed: ShardFeed) -> list[int]:
    found = []
    while (shard := feed.next()) is not None:
        found.append(shard)
    return found


def test_a_feed_of_given_shards_ends_with_them() -> None:
    feed = ShardFeed.of([3, 1, 2])
    assert drained(feed) == [3, 1, 2]
    assert feed.ended and feed.complete
    feed.begin_again([1, 2])
    assert not feed.ended and drained(feed) == [1, 2]


def test_shards_of_a_plan_in_the_making_come_as_they_are_planned() -> None:
    clock, parts = Clock(), iter([({0: 4}, True), ({}, True), ({1: 4, 2: 3}, False)])
    feed = ShardFeed({}, more=lambda: next(parts), clock=clock)
    assert not feed.ended and not feed.complete
    assert drained(feed) == [0]
    assert not feed.ended, "the store is not asked again at once"
    clock.now_s += LOOK_EVERY_S
    assert drained(feed) == [] and not feed.ended
    clock.now_s += LOOK_EVERY_S
    assert drained(feed) == [1, 2] and feed.ended
    assert feed.shards == {0: 4, 1: 4, 2: 3}


def test_two_drivers_share_the_shards(store: ObjectStore) -> None:
    feeds = [ShardFeed(dict.fromkeys(range(6), 1), claims=ShardClaims(store, RUN, one)) for one in "ab"]
    taken = [[feed.next() for feed in feeds] for _ in range(3)]
    assert sorted(shard for pair in taken for shard in pair if shard is not None) == list(range(6))


def test_what_another_holds_is_waited_for_dropped_when_done_and_taken_over_when_it_dies(
    store: ObjectStore,
) -> None:
    clock, done, told = Clock(), set[int](), list[str]()
    with announce(store, "generate") as lease:
        theirs = ShardClaims(store, RUN, lease.driver_id)
        assert all(theirs.take(shard) for shard in (0, 1, 2))
        feed = ShardFeed(
            dict.fromkeys(range(4), 5),
            claims=ShardClaims(store, RUN, "b"),
            done=lambda: done,
            waiting=told.append,
            clock=clock,
        )
        assert drained(feed) == [3]
        assert len(told) == 1 and "3 shards, of generate on" in told[0] and not feed.ended
        done.add(0)
        clock.now_s += LOOK_EVERY_S
        assert drained(feed) == [] and feed.shards == dict.fromkeys((1, 2, 3), 5)
        theirs.release(1)  # given up there
        clock.now_s += LOOK_EVERY_S
        assert drained(feed) == [1] and not feed.ended
    clock.now_s += LOOK_EVERY_S
    assert drained(feed) == [2] and feed.ended and len(told) == 1


def test_a_shard_given_up_here_is_free_for_others(store: ObjectStore) -> None:
    feed = ShardFeed({0: 1}, claims=ShardClaims(store, RUN, "a"))
    assert feed.next() == 0
    feed.give_up(0)
    assert ShardClaims(store, RUN, "b").take(0)


def test_a_long_row_of_taken_shards_is_passed_in_steps(store: ObjectStore) -> None:
    """The caller has workers to look after meanwhile."""
    tried: list[int] = []

    class Taken(ShardClaims):
        def take(self, shard: int) -> bool:
            tried.append(shard)
            return False

    feed = ShardFeed(dict.fromkeys(range(MOST_TRIES + 9), 1), claims=Taken(store, RUN, "b"))
    assert feed.next() is None and not feed.ended
    assert len(set(tried)) == MOST_TRIES
    feed.next()
    assert sorted(tried) == list(range(MOST_TRIES + 9)), "each once, none left out"


def test_what_is_likely_next_is_claimed_when_it_is_handed_out(store: ObjectStore) -> None:
    feeds = [ShardFeed(dict.fromkeys(range(100), 1), claims=ShardClaims(store, RUN, one)) for one in "ab"]
    assert feeds[0].next() == 0
    assert feeds[0].likely() == 1 and feeds[0].likely(spare={1, 2}) == 3
    assert ShardClaims(store, RUN, "c").take(1), "nobody has it yet"
    assert feeds[0].next(wish=1) not in (0, 1), "and then it is another one's"
    assert feeds[0].next(spare=range(100)) is not None, "what is spared is handed out last"


def test_who_meets_another_driver_goes_on_elsewhere(store: ObjectStore) -> None:
    """Each has a stretch of its own, so what its workers were told of comes true."""
    feeds = [ShardFeed(dict.fromkeys(range(1000), 1), claims=ShardClaims(store, RUN, one)) for one in "abc"]
    taken: dict[int, list[int | None]] = {0: [], 1: [], 2: []}
    true = 0
    for _ in range(50):
        for driver, feed in enumerate(feeds):
            likely = feed.likely()
            taken[driver].append(feed.next())
            true += taken[driver][-1] == likely
    assert len({shard for found in taken.values() for shard in found}) == 150
    assert true >= 145, "but where they met"


def test_a_store_that_does_not_answer_is_asked_again() -> None:
    clock, answers = Clock(), iter([None, {0: 1}])

    def more() -> tuple[Mapping[int, int], bool]:
        answer = next(answers)
        if answer is None:
            raise StoreUnavailable("no answer")
        return answer, False

    feed = ShardFeed({}, more=more, clock=clock)
    assert feed.next() is None and not feed.ended
    clock.now_s += LOOK_EVERY_S
    assert feed.next() == 0 and feed.ended
