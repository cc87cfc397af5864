"""What is told of a worker that is gone, and when no more are started."""

from __future__ import annotations

import time

import pytest
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from maskmill.workers.pool.last_words import (
    MAX_ROUNDS,
    StartRounds,
    last_words,
    raised_at_start,
    start_advice,
)

RAISED = (
    "\x1b[36mray::ShardWorker.__init__()\x1b[39m (pid=7, ip=10.0.0.2, actor_id=70, repr=<maskmill.X>)\n"
    "RuntimeError: The actor with name ShardWorker failed to import on the worker. This may be because "
    "needed library dependencies are not installed in the worker environment:\n\n"
    "Traceback (most recent call last):\n"
    '  File "/venv/ray/function_manager.py", line 698, in _load_actor_class_from_gcs\n'
    "    actor_class = pickle.loads(pickled_class)\n"
    '  File "/home/ann/pipeline.py", line 3, in <module>\n'
    "    import pipelines\n"
    "ModuleNotFoundError: No module named 'pipelines'\n"
)


class _Raised(RayTaskError):
    """An error in an actor's creation, with Ray's text of it."""

    def __init__(self, text: str) -> None:
        self._actor_id, self._text = "70", text

    def __str__(self) -> str:
        return self._text


def test_an_error_at_the_start_is_told_with_its_place_and_node() -> None:
    error = ActorDiedError(_Raised(RAISED))
    assert raised_at_start(error)
    assert last_words(error) == (
        "ModuleNotFoundError: No module named 'pipelines' (/home/ann/pipeline.py, line 3), "
        "on the node 10.0.0.2"
    )
    assert "must be installed on every Ray node" in start_advice(last_words(error))


def test_an_error_of_many_lines_is_one_line() -> None:
    text = 'ray::X() (pid=7, ip=::1)\n  File "/a.py", line 9, in f\n    raise E\nE: first\nsecond\n'
    assert last_words(ActorDiedError(_Raised(text))) == "E: first second (/a.py, line 9), on the node ::1"
    assert "installed" not in start_advice("E: first")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "The actor died unexpectedly before finishing this task.\n\tclass_name: X\nThe actor is dead "
            "because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
            "unexpectedly exits with a connection error code 2. End of file. There are some potential root "
            "causes. (1) The process is killed by SIGKILL by OOM killer due to high memory usage.",
            "its process ended: Worker unexpectedly exits with a connection error code 2. End of file.",
        ),
        ("The actor is unavailable.\nmore", "The actor is unavailable."),
        ("", "RayActorError"),
    ],
)
def test_a_death_without_a_word_is_told_by_how_the_process_ended(text: str, told: str) -> None:
    error = RayActorError(error_msg=text)
    assert not raised_at_start(error)
    assert last_words(error) == told


def test_a_start_that_fails_alike_round_after_round_is_given_up_wherever_it_was() -> None:
    rounds = StartRounds()
    failed = [rounds.failed(f"E: x, on the node 10.0.0.{n}", time.monotonic()) for n in range(MAX_ROUNDS)]
    assert failed == [False] * (MAX_ROUNDS - 1) + [True]


def test_many_that_fail_together_are_one_round() -> None:
    rounds = StartRounds()
    began = time.monotonic()
    assert not any(rounds.failed("E: x", began) for _ in range(20))


def test_other_errors_and_workers_that_start_begin_the_count_again() -> None:
    rounds = StartRounds()
    for reason in ("E: x", "E: y") * (MAX_ROUNDS - 1):
        assert not rounds.failed(reason, time.monotonic())
    rounds.ready()
    assert not any(rounds.failed("E: x", time.monotonic()) for _ in range(MAX_ROUNDS - 1))
