"""A run under Prefect: each of its steps is a task, and what it tells becomes artifacts and log lines.

    with as_tasks():
        report = generate(dataset, inputs, config)     the plain run of runs/

Nothing is cached by Prefect: storage knows what is done.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import Task, get_run_logger
from prefect.cache_policies import NO_CACHE

from maskmill.flows.config import ConfigError, RunConfig, load_config
from maskmill.flows.deployments.retries import patient
from maskmill.flows.report.report import ProgressArtifact, Tally, Watcher, watcher, watching
from maskmill.flows.runs.steps.taking import Step, taking

PROGRESS = "maskmill-progress"


@contextmanager
def as_tasks() -> Iterator[None]:
    """Steps of runs started inside the block, within a flow of Prefect's, are tasks of it."""
    with taking(_take):
        yield


def config_of(config: RunConfig | str) -> RunConfig:
    """A flow's parameter: a whole run, or a recipe's name.

    Raises:
        ConfigError: no recipe has this name.
    """
    return load_config(config) if isinstance(config, str) else config


def both(coco_name: str, coco: str | None, images_name: str, images: str | None) -> tuple[Path, Path] | None:
    """Two of a flow's parameters, annotations and the folder of their pictures, or neither.

    Raises:
        ConfigError: one of them alone.
    """
    if not coco and not images:
        return None
    if not coco or not images:
        raise ConfigError(f"{coco_name} and {images_name} go together: name both, or neither")
    return Path(coco), Path(images)


def _take(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    @functools.wraps(step.work)  # Prefect names the task's inputs by its parameters
    def work(*args: Any, **kwargs: Any) -> Any:
        """The step as a task's body, watched by a recorder of its own."""
        recorder = Recorder(watcher())
        with watching(recorder):
            done = step.work(*args, **kwargs)
        recorder.end()
        return done

    made = Task(work, name=step.title, cache_policy=NO_CACHE)
    return (patient(made) if step.may_pass else made)(*args, **kwargs)


class Recorder:
    """Watches a task: hands all on to who watches the run; tallies become an artifact, records log lines."""

    def __init__(self, outer: Watcher) -> None:
        self._outer = outer
        self._last: Tally | None = None
        self._artifact: ProgressArtifact | None = None

    def step(self, title: str, counts: str = "") -> None:
        """As `Watcher`."""
        self._outer.step(title, counts)

    def count(self, done: int, total: int | None = None) -> None:
        """As `Watcher`."""
        self._outer.count(done, total)

    def note(self, text: str) -> None:
        """As `Watcher`."""
        self._outer.note(text)

    def record(self, text: str) -> None:
        """A line of the run's log."""
        get_run_logger().info("%s", text)
        self._outer.record(text)

    def tally(self, tally: Tally) -> None:
        """As `Watcher`, and on the progress artifact."""
        self._outer.tally(tally)
        self._last = tally
        if self._artifact is None:
            self._artifact = ProgressArtifact(PROGRESS)
        self._artifact.update(tally)

    def end(self) -> None:
        """The task has done its work: the artifact shows the last tally."""
        if self._artifact is not None and self._last is not None:
            self._artifact.update(self._last, last=True)
