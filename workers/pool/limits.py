"""What a pool may do: `run_pool`'s arguments of these names, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from maskmill.workers.run.spec import Resources


@dataclass(frozen=True)
class Limits:
    """See `run_pool`."""

    resources: Resources
    num_workers: int | None
    max_attempts: int
    deadline_s: float | None
    progress_every_s: float
    max_losses_in_a_row: int | None
    autoscale: bool
