"""Who gets which shard, and who is told of which ahead. No Ray."""

from __future__ import annotations

from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.workers.pool.todo import Todo


def todo_of(shards: int) -> Todo:
    return Todo(ShardFeed.of(range(shards)).next)


def handed_out(todo: Todo, worker: int) -> tuple[int, int | None]:
    """The shard that a worker gets, and what it is told of."""
    task = todo.task_of(todo.take(worker), worker)
    return task.shard, task.likely_next


def test_a_worker_gets_what_it_was_told_of_and_nobody_is_told_the_same() -> None:
    todo = todo_of(6)
    todo.pull(4)
    assert handed_out(todo, 0) == (0, 1)
    assert handed_out(todo, 1) == (2, 3)
    todo.pull(4)
    assert handed_out(todo, 1) == (3, 4)
    assert handed_out(todo, 0) == (1, 5)
    assert handed_out(todo, 1) == (4, None)
    assert handed_out(todo, 0) == (5, None)
    assert len(todo) == 0


def test_nothing_waits_for_a_worker_that_was_told_of_it() -> None:
    todo = todo_of(2)
    todo.pull(2)
    assert handed_out(todo, 0) == (0, 1)
    assert handed_out(todo, 1) == (1, None)


def test_shards_are_pulled_as_they_are_asked_for() -> None:
    numbers = iter(range(10))
    todo = Todo(lambda: next(numbers, None))
    todo.pull(3)
    assert (len(todo), next(numbers)) == (3, 3)


def test_a_shard_that_failed_is_told_nothing_and_told_to_nobody() -> None:
    todo = todo_of(4)
    todo.pull(4)
    again = todo.take(0)
    again.next_task()
    assert todo.task_of(again, 0).likely_next is None
    todo.append(again)
    assert handed_out(todo, 1) == (1, 2)
    assert handed_out(todo, 2) == (3, None), "shard 0 has had a turn, 2 was told of"


def test_a_shard_is_told_of_once_though_its_worker_dies() -> None:
    todo = todo_of(3)
    todo.pull(3)
    assert handed_out(todo, 0) == (0, 1)
    assert handed_out(todo, 1) == (2, None)
