"""How a run takes its steps: as plain calls, or each as something that another program keeps a record of.

    @step("annotate", may_pass=True)
    def annotate(spec, config): ...

A run is written once, as plain functions; a command that needs no Prefect calls it as it is. Prefect's flows
(deployments/) call the same function `with taking(...)`, and each step becomes a task there. Steps are
coarse: never one per shard, as Prefect's database stalls under hundreds.

It doesn't know Prefect.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a run.

    Attributes:
        title: for people.
        work: what it does.
        may_pass: what goes wrong in it may pass by itself (a store, a cluster): worth trying again.
    """

    title: str
    work: Callable[..., Any]
    may_pass: bool = False


Taker = Callable[[Step, tuple[Any, ...], dict[str, Any]], Any]
"""Takes a step with its arguments, and returns what it returns."""


def _plainly(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return step.work(*args, **kwargs)


_taker: ContextVar[Taker] = ContextVar("maskmill_taker", default=_plainly)


def step(title: str, *, may_pass: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Marks a function as a step of a run; see `Step`."""

    def mark(work: Callable[P, R]) -> Callable[P, R]:
        """The function, to be taken as this step."""
        found = Step(title=title, work=work, may_pass=may_pass)

        @functools.wraps(work)
        def take(*args: P.args, **kwargs: P.kwargs) -> R:
            """Hands the step and its arguments to who takes steps now."""
            taken: R = _taker.get()(found, args, kwargs)
            return taken

        return take

    return mark


@contextmanager
def taking(taker: Taker) -> Iterator[None]:
    """Steps of runs started inside the block on this thread are taken by `taker`."""
    token = _taker.set(taker)
    try:
        yield
    finally:
        _taker.reset(token)
