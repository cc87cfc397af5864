"""The run `retrain`: a model version from a generation, and what a gate says of it.

A training's name is a fingerprint of everything that changes the outcome, so the same run goes on where it
stopped, and another setting is another training. The writer's lock is held throughout. Nothing here touches
an array.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import ConfigError, RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.gate import judge, refuse_overlap
from maskmill.flows.runs.steps.holding import writing
from maskmill.flows.runs.steps.taking import step
from maskmill.flows.services.ray import cluster
from maskmill.pipeline.settings import output_settings
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.records import fingerprint
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.stores.open import open_store
from maskmill.workers.run import dataset_models as models

if TYPE_CHECKING:
    from maskmill.storage.dataset.model_versions import ModelCard
    from maskmill.workers.train.loop import StepFigures, TrainJob

NEUTRAL = ("micro_batch", "checkpointing", "checkpoint_every")
"""Settings of a training that don't change what comes of it."""
STARTS = ("promoted", "base")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrained:
    """What came of a retraining.

    Attributes:
        card: of the model version.
        generation: that it was trained on.
        decision: the gate's, as kept on the card; None without a gate.
    """

    card: ModelCard
    generation: int
    decision: Mapping[str, Any] | None

    def facts(self) -> dict[str, Any]:
        """The card with the decision, for JSON."""
        return {**dataclasses.asdict(self.card), "decision": self.decision}


def retrain(
    dataset: str,
    config: RunConfig,
    *,
    generation: int | None = None,
    gate: tuple[Path, Path] | None = None,
    promote: bool = False,
    start: str = "promoted",
    workers: int = 1,
    wait_s: float = 0.0,
) -> Retrained:
    """Trains a model version on a generation, and judges it.

    Args:
        dataset: its root.
        config: [segmenter] to start from, [retrain], [gate] and [evaluate].
        generation: to train on; None is the latest.
        gate: annotations and pictures that the result is judged on; None measures nothing.
        promote: put the result in force if the gate accepts it.
        start: "promoted": from the model in force; "base": from [segmenter] as it is.
        workers: training processes.
        wait_s: how long to wait for another writer of this dataset, seconds; 0 is refused at once.

    Raises:
        WriterBusy: another writer works on the dataset.
        ConfigError: an unknown `start`, or `promote` without a gate.
        InputError, StorageError, ClusterError, RunStopped: with the cause and the cure.
    """
    if start not in STARTS or (promote and gate is None):
        raise ConfigError("--start is promoted or base, and --promote needs a --gate to judge by")
    with writing(dataset, "retrain", wait_s=wait_s):
        return train(dataset, config, generation, gate, promote, start, workers)


@step("train")
def train(
    dataset: str,
    config: RunConfig,
    generation: int | None,
    gate: tuple[Path, Path] | None,
    promote: bool,
    start: str,
    workers: int,
) -> Retrained:
    """One model version, and what a gate says of it; arguments and errors as `retrain` has them.

    The latest generation is the one with all that people saved so far.

    Raises:
        InputError, StorageError, ClusterError, RunStopped: with the cause and the cure.
    """
    from maskmill.workers.reviews.column import publish_saves

    if generation is None:
        publish_saves(open_store(dataset), created_utc=now_utc())
    job = plan_training(dataset, generation, config, gate=gate, start=start)
    card = run_training(job, config, workers=workers)
    decision = judge(dataset, card.number, config, *gate, promote=promote) if gate else None
    return Retrained(card=card, generation=job.generation, decision=decision)


def plan_training(
    dataset: str,
    number: int | None,
    config: RunConfig,
    *,
    gate: tuple[Path, Path] | None = None,
    start: str = "promoted",
) -> TrainJob:
    """Everything a trainer needs.

    Args:
        dataset: its root.
        number: the generation; None is the latest.
        config: [segmenter] to start from and [retrain].
        gate: annotations and pictures that the result will be judged on.
        start: "promoted": from the model in force; "base": from [segmenter] as it is.

    Raises:
        DatasetError: no generation.
        InputError: the gate set and the generation share a picture.
        WeightsError: the weights to start from can't be used.
    """
    from maskmill.workers.train.loop import TrainJob, weights_of

    store = open_store(dataset)
    generation = find_generation(store, number)
    if gate is not None:
        refuse_overlap(store, generation, *gate)

    # the training's name, of all that changes what comes of it
    settings = models.in_force(store, config.segmenter) if start == "promoted" else config.segmenter
    counted = {name: value for name, value in output_settings(config.retrain).items() if name not in NEUTRAL}
    weights = weights_of(settings)
    run = fingerprint(
        {**counted, "model": settings.model, "generation": generation.manifest.sha256},
        weights=weights,
        revision=1,
        inputs={},
    )

    return TrainJob(
        root=store.root,
        generation=generation.number,
        segmenter=settings,
        settings=config.retrain,
        run=run,
        facts={"started_from": weights, "manifest_sha256": generation.manifest.sha256},
    )


def run_training(job: TrainJob, config: RunConfig, *, workers: int = 1) -> ModelCard:
    """Trains in this process, or with several workers (or on a joined cluster) on Ray Train.

    Args:
        job: by `plan_training`.
        config: [run] names the cluster, [segmenter] the device.
        workers: training processes.

    Raises:
        RunStopped: the training cannot go on.
        ClusterError: no cluster.
    """
    if workers == 1 and config.run.ray_address is None:
        from maskmill.workers.train.loop import train

        card = train(job, watch=_shown(job))
        assert card is not None
        return card

    with cluster.connected(config.run.ray_address):
        import ray

        from maskmill.workers.train.on_ray import train_on_ray

        seen: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = seen.get("GPU", 0) if config.segmenter.device != "cpu" else 0
        watcher().step(f"training run {job.run} on {workers} workers")
        return train_on_ray(
            job,
            num_workers=workers,
            num_cpus=max(1.0, float(int(seen.get("CPU", 1) / (workers + 1)))),
            use_gpu=gpus >= workers,
        )


def _shown(job: TrainJob) -> Callable[[StepFigures], None]:
    watcher().step(f"training run {job.run}", "step")

    def watch(figures: StepFigures) -> None:
        """Counts a step of training."""
        watcher().count(figures.step, job.settings.steps)

    return watch
