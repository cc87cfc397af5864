"""The run `loop` as a flow: runs/loop.py, its outcome kept as an artifact. Each round's `generate` is a flow.

It waits for another writer of the dataset, up to `wait_s`, or is refused (a scheduled one is skipped:
skipping.py). It is resumable at any step by running it again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from maskmill.flows.config import RunConfig
from maskmill.flows.deployments.skipping import patience_s, skipped
from maskmill.flows.deployments.tasks import both, config_of
from maskmill.flows.report.report import lines_artifact
from maskmill.flows.runs.improve import loop as run
from maskmill.flows.services.prefect.processes import note_process
from maskmill.storage.drivers.one_writer import WriterBusy


@flow(name="loop", description="Annotates, reviews, retrains, gates and promotes, round by round.")
def loop(
    dataset: str,
    inputs: list[str],
    coco: str,
    images: str,
    rounds: int = 1,
    truth_coco: str | None = None,
    truth_images: str | None = None,
    workers: int = 1,
    config: RunConfig | str = "nano",
    wait_s: float = 0.0,
) -> dict[str, Any] | State[Any]:
    """Runs what is left of a loop.

    Args:
        dataset: its root.
        inputs: images to annotate.
        coco, images: annotations and the folder of their pictures that rounds are judged on.
        rounds: how many.
        truth_coco, truth_images: what the oracle knows; None works without an oracle.
        workers: training processes.
        config: a whole run, or a recipe's name.
        wait_s: how long to wait for another writer of this dataset.

    Raises:
        WriterBusy, ConfigError, InputError, StorageError: with the cause and the cure.
    """
    note_process()
    plan = run.LoopPlan(
        dataset=dataset,
        inputs=tuple(inputs),
        rounds=rounds,
        gate=(Path(coco), Path(images)),
        truth=both("truth_coco", truth_coco, "truth_images", truth_images),
    )
    try:
        report = run.loop(plan, config_of(config), workers=workers, wait_s=patience_s(wait_s))
    except WriterBusy as busy:
        return skipped(busy)

    lines = [("loop", report.loop), ("rounds", len(report.rounds)), ("promoted", report.promoted)]
    lines_artifact(lines, key="maskmill-loop", description=f"dataset {dataset}")
    fields: dict[str, Any] = dataclasses.asdict(report)
    return fields
