"""Who gets which shard, and who is told of which ahead. No Ray."""

from __future__ import annotations

from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.workers.pool.todo import Todo


def todo_of(shards: int) -> Todo:
    return Todo(ShardFeed.of(range(shards)))


def handed_out(todo: Todo, worker: int) -> tuple[int, int | None]:
    """The shard that a free worker gets, and what it is told of."""
    todo.pull(1, [worker])
    task = todo.task_of(todo.take(worker), worker)
    return task.shard, task.likely_next


def test_a_worker_gets_what_it_was_told_of_and_nobody_is_told_the_same() -> None:
    todo = todo_of(6)
    todo.pull(2, [0, 1])
    assert [handed_out(todo, worker) for worker in (0, 1)] == [(0, 2), (1, 3)]
    assert handed_out(todo, 1) == (3, 4)
    assert handed_out(todo, 0) == (2, 5)
    assert handed_out(todo, 1) == (4, None)
    assert handed_out(todo, 0) == (5, None)
    assert len(todo) == 0


def test_free_workers_get_what_each_was_told_of_whoever_comes_first() -> None:
    todo = todo_of(4)
    assert [handed_out(todo, worker) for worker in (0, 1)] == [(0, 1), (2, 3)]
    todo.pull(2, [1, 0])
    assert len(todo) == 2
    assert [todo.take(worker).shard for worker in (0, 1)] == [1, 3]


def test_nothing_waits_for_a_worker_that_was_told_of_it() -> None:
    todo = todo_of(2)
    assert handed_out(todo, 0) == (0, 1)
    assert handed_out(todo, 1) == (1, None)


def test_shards_are_pulled_as_they_are_asked_for() -> None:
    feed = ShardFeed.of(range(10))
    todo = Todo(feed)
    todo.pull(3)
    assert (len(todo), feed.next()) == (3, 3)


def test_what_a_worker_was_told_of_another_driver_may_take() -> None:
    feed = ShardFeed.of(range(4))
    todo = Todo(feed)
    assert handed_out(todo, 0) == (0, 1)
    assert feed.next(wish=1) == 1, "told, and claimed by nobody"
    assert handed_out(todo, 0) == (2, 3), "and the worker gets another"


def test_a_shard_that_failed_is_told_nothing_and_told_to_nobody() -> None:
    todo = todo_of(4)
    todo.pull(1)
    again = todo.take(0)
    again.next_task()
    assert todo.task_of(again, 0).likely_next is None
    todo.append(again)
    assert todo.task_of(todo.take(1), 1).likely_next is None, "its second turn"
    assert handed_out(todo, 2) == (1, 2)
    assert handed_out(todo, 3) == (3, None), "shard 0 has had a turn, 2 was told of"


def test_a_shard_is_told_of_once_though_its_worker_dies() -> None:
    todo = todo_of(3)
    assert handed_out(todo, 0) == (0, 1)
    assert handed_out(todo, 1) == (2, None)
