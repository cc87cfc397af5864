"""Retries and time limits for runs that nobody watches.

A command that fails tells the person who typed it; a deployment's run at night tries again what may pass by
itself: a store or a cluster that doesn't answer. Settings, inputs and our own bugs are not tried again.
"""

from __future__ import annotations

from typing import Any, TypeVar

from prefect import Task, runtime

RETRIES = 3
RETRY_DELAY_S = 60
TIMEOUT_S = 7 * 24 * 3600.0
PASSING = ("StoreUnavailable", "ClusterError", "ConnectionError", "ConnectionRefusedError", "TimeoutError")
"""Names of errors that may pass by themselves."""

T = TypeVar("T", bound="Task[Any, Any]")


def patient(task: T) -> T:
    """The task, tried again within a deployment's run; as it is within others."""
    if not runtime.deployment.id:
        return task
    return task.with_options(  # type: ignore[return-value]
        retries=RETRIES,
        retry_delay_seconds=RETRY_DELAY_S,
        timeout_seconds=TIMEOUT_S,
        retry_condition_fn=_may_pass,
    )


def _may_pass(task: Any, run: Any, state: Any) -> bool:
    """Whether the failure is one of `PASSING`."""
    error = state.result(raise_on_failure=False)
    return any(kind.__name__ in PASSING for kind in type(error).__mro__)
