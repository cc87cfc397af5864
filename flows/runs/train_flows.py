"""`retrain` and `loop` under Prefect: the same steps as the commands, their results kept as artifacts.

A dataset has one writer at a time: a retraining waits for a relabel, up to `wait_s`, or is refused (a
scheduled one is skipped: skipping.py). Both are resumable at any step by running them again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from maskmill.flows.config import ConfigError, RunConfig, load_config
from maskmill.flows.report.report import lines_artifact
from maskmill.flows.runs import steps
from maskmill.flows.runs.skipping import patience_s, skipped
from maskmill.flows.services.lost_runs import note_process
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
    run = load_config(config) if isinstance(config, str) else config
    gate = _both("coco", coco, "images", images)
    try:
        with steps.writing(dataset, "retrain", wait_s=patience_s(wait_s)):
            return train(dataset, generation, run, gate, start, workers, promote)
    except WriterBusy as busy:
        return skipped(busy)


@task(name="train", cache_policy=NO_CACHE)
def train(
    dataset: str,
    generation: int | None,
    config: RunConfig,
    gate: tuple[Path, Path] | None,
    start: str,
    workers: int,
    promote: bool,
) -> dict[str, Any]:
    """One model version, and what a gate says of it."""
    from maskmill.flows.runs.gate import judge
    from maskmill.flows.runs.retrain import card_facts, plan_training, run_training

    job = plan_training(dataset, generation, config, gate=gate, start=start)
    card = run_training(job, config, workers=workers)
    decision = judge(dataset, card.number, config, *gate, promote=promote) if gate else None
    lines = [("model", card.number), ("generation", job.generation), ("weights", card.weights.name)]
    lines += [("gate", decision["why"])] if decision else []
    lines_artifact(lines, key="maskmill-retrain", description=f"dataset {dataset}")
    return {**card_facts(card), "decision": decision}


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
    from maskmill.flows.runs.loop import LoopPlan, run_loop

    note_process()
    run = load_config(config) if isinstance(config, str) else config
    truth = _both("truth_coco", truth_coco, "truth_images", truth_images)
    plan = LoopPlan(
        dataset=dataset, inputs=tuple(inputs), rounds=rounds, gate=(Path(coco), Path(images)), truth=truth
    )
    try:
        with steps.writing(dataset, "loop", wait_s=patience_s(wait_s)):
            report = run_loop(plan, run, workers=workers)
    except WriterBusy as busy:
        return skipped(busy)
    lines = [("loop", report.loop), ("rounds", len(report.rounds)), ("promoted", report.promoted)]
    lines_artifact(lines, key="maskmill-loop", description=f"dataset {dataset}")
    fields: dict[str, Any] = dataclasses.asdict(report)
    return fields


def _both(coco_name: str, coco: str | None, images_name: str, images: str | None) -> tuple[Path, Path] | None:
    """Annotations and the folder of their pictures, or neither. Raises ConfigError."""
    if not coco and not images:
        return None
    if not coco or not images:
        raise ConfigError(f"{coco_name} and {images_name} go together: name both, or neither")
    return Path(coco), Path(images)
