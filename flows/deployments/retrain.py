"""The run `retrain` as a flow: runs/retrain.py, its result kept as an artifact.

It waits for another writer of the dataset, up to `wait_s`, or is refused (a scheduled one is skipped:
skipping.py). It is resumable at any step by running it again.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from maskmill.flows.config import RunConfig
from maskmill.flows.deployments.skipping import patience_s, skipped
from maskmill.flows.deployments.tasks import as_tasks, both, config_of
from maskmill.flows.report.report import lines_artifact
from maskmill.flows.runs.improve import retrain as run
from maskmill.flows.services.prefect.processes import note_process
from maskmill.storage.drivers.one_writer import WriterBusy


@flow(name="retrain", description="Fine-tunes the segmenter on a generation; a gate may put it in force.")
def retrain(
    dataset: str,
    generation: int | None = None,
    coco: str | None = None,
    images: str | None = None,
    promote: bool = False,
    start: str = "promoted",
    workers: int = 1,
    config: RunConfig | str = "nano",
    wait_s: float = 0.0,
) -> dict[str, Any] | State[Any]:
    """Trains a model version from a generation.

    Args:
        dataset: its root.
        generation: to train on; None is the latest.
        coco, images: annotations and the folder of their pictures, for the gate; None measures nothing.
        promote: put the result in force if the gate accepts it.
        start: "promoted" (the model in force) or "base".
        workers: training processes.
        config: a whole run, or a recipe's name.
        wait_s: how long to wait for another writer of this dataset.

    Raises:
        WriterBusy, ConfigError, InputError, StorageError: with the cause and the cure.
    """
    note_process()
    gate = both("coco", coco, "images", images)
    try:
        with as_tasks():
            done = run.retrain(
                dataset,
                config_of(config),
                generation=generation,
                gate=gate,
                promote=promote,
                start=start,
                workers=workers,
                wait_s=patience_s(wait_s),
            )
    except WriterBusy as busy:
        return skipped(busy)

    card = done.card
    lines = [("model", card.number), ("generation", done.generation), ("weights", card.weights.name)]
    lines += [("gate", done.decision["why"])] if done.decision else []
    lines_artifact(lines, key="maskmill-retrain", description=f"dataset {dataset}")
    return done.facts()
