"""Trains the segmenter on a generation: what to start from, the gate set kept apart, the run's name.

The run's name is a fingerprint of everything that changes the outcome, so the same command goes on where it
stopped, and another setting is another run. Nothing here touches an array.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.storage.errors import InputError

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.model_versions import ModelCard
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.train.loop import StepFigures, TrainJob

NEUTRAL = ("micro_batch", "checkpointing", "checkpoint_every")


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
    from maskmill.flows.runs.steps import generation_of
    from maskmill.storage.dataset.records import fingerprint
    from maskmill.storage.stores.open import open_store
    from maskmill.workers.run import dataset_models as models
    from maskmill.workers.train.loop import TrainJob, weights_of

    store = open_store(dataset)
    generation = generation_of(dataset, number)
    if gate is not None:
        refuse_overlap(store, generation, *gate)
    settings = models.in_force(store, config.segmenter) if start == "promoted" else config.segmenter
    counted = dataclasses.asdict(config.retrain)
    for name in NEUTRAL:
        del counted[name]
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


def refuse_overlap(store: ObjectStore, generation: Generation, coco: Path, images: Path) -> None:
    """Raises InputError where a picture of the gate set is in the generation, byte for byte."""
    from maskmill.workers.foreign.truth import picture_sha256s
    from maskmill.workers.train.stream import source_sha256s

    trained = source_sha256s(store, generation)
    shared = sorted(name for name, sha256 in picture_sha256s(coco, images).items() if sha256 in trained)
    if shared:
        raise InputError(
            f"the gate set {coco} overlaps the training set: {len(shared)} of its pictures are in "
            f"generation {generation.number} of {store.root} ({', '.join(shared[:3])}). Gate on pictures "
            "that are not in the dataset, or leave these out of it"
        )


def run_training(job: TrainJob, config: RunConfig, *, workers: int = 1) -> ModelCard:
    """Trains in this process, or with several workers (or on a joined cluster) on Ray Train.

    Raises:
        RunStopped: the training cannot go on.
        ClusterError: no cluster.
    """
    if workers == 1 and config.run.ray_address is None:
        from maskmill.workers.train.loop import train

        card = train(job, watch=_shown(job))
        assert card is not None
        return card
    from maskmill.flows.services import cluster

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


def card_facts(card: ModelCard) -> dict[str, Any]:
    """A card for JSON."""
    return dataclasses.asdict(card)


def _shown(job: TrainJob) -> Callable[[StepFigures], None]:
    watcher().step(f"training run {job.run}")

    def watch(figures: StepFigures) -> None:
        watcher().count(figures.step, job.settings.steps)

    return watch


def run_distillation(dataset: str, number: int | None, config: RunConfig, student: str) -> ModelCard:
    """Distils [segmenter] into a student on a generation, by [distill].

    Raises:
        InputError: an unknown student, or too few images.
        RunStopped: the loss is no number.
    """
    from maskmill.flows.runs.steps import generation_of
    from maskmill.storage.dataset.records import fingerprint
    from maskmill.storage.stores.open import open_store
    from maskmill.workers.run import dataset_models as models
    from maskmill.workers.train.distill import DistillJob, distill
    from maskmill.workers.train.loop import weights_of

    generation = generation_of(dataset, number)
    teacher = models.in_force(open_store(dataset), config.segmenter)
    counted = {key: value for key, value in dataclasses.asdict(config.distill).items() if key not in NEUTRAL}
    weights = weights_of(teacher)
    facts = {**counted, "teacher": teacher.model, "student": student}
    job = DistillJob(
        root=dataset,
        generation=generation.number,
        teacher=teacher,
        student=student,
        settings=config.distill,
        run=fingerprint(
            {**facts, "generation": generation.manifest.sha256}, weights=weights, revision=1, inputs={}
        ),
        facts={"teacher": teacher.model, "teacher_sha256": weights},
    )
    watcher().step(f"distilling run {job.run}")
    total = config.distill.encoder_steps + config.distill.prompt_steps
    return distill(job, watch=lambda step, loss: watcher().count(step, total))
