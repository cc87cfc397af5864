"""The run `distill`: a smaller model that knows what a larger one knows, kept as a model of the dataset.

Named by a fingerprint of what changes the outcome, as a retraining is. The writer's lock is held throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.improve.evaluate import named
from maskmill.flows.runs.improve.retrain import NEUTRAL
from maskmill.flows.runs.steps.holding import writing
from maskmill.pipeline.settings import output_settings
from maskmill.storage.dataset.records import fingerprint
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.stores.open import open_store
from maskmill.workers.run import dataset_models as models

if TYPE_CHECKING:
    from maskmill.storage.dataset.model_versions import ModelCard


def distill(
    dataset: str, generation: int | None, config: RunConfig, *, teacher: str | None = None, student: str
) -> ModelCard:
    """Distils a teacher into a student on a generation's pictures, by [distill].

    Args:
        dataset: its root.
        generation: whose pictures; None is the latest's.
        config: [distill] is how it teaches.
        teacher: "MODEL" or "MODEL=WEIGHTS"; None is [segmenter].
        student: the student's shape, "nano" or "tiny".

    Raises:
        WriterBusy: another writer works on the dataset.
        ConfigError: an unknown teacher.
        InputError: an unknown student, or too few images.
        RunStopped: the loss is no number.
    """
    config = config.model_copy(update={"segmenter": named(teacher, config.segmenter)})
    with writing(dataset, "distill"):
        return run_distillation(dataset, generation, config, student)


def run_distillation(dataset: str, number: int | None, config: RunConfig, student: str) -> ModelCard:
    """As `distill`, for who holds the lock; [segmenter] is the teacher.

    Raises:
        InputError: an unknown student, or too few images.
        RunStopped: the loss is no number.
    """
    from maskmill.workers.train.distill import DistillJob, distill
    from maskmill.workers.train.loop import weights_of

    store = open_store(dataset)
    generation = find_generation(store, number)
    teacher = models.in_force(store, config.segmenter)

    # the run's name, of all that changes what comes of it
    counted = {key: value for key, value in output_settings(config.distill).items() if key not in NEUTRAL}
    weights = weights_of(teacher)
    facts = {**counted, "teacher": teacher.model, "student": student}
    run = fingerprint(
        {**facts, "generation": generation.manifest.sha256}, weights=weights, revision=1, inputs={}
    )

    job = DistillJob(
        root=dataset,
        generation=generation.number,
        teacher=teacher,
        student=student,
        settings=config.distill,
        run=run,
        facts={"teacher": teacher.model, "teacher_sha256": weights},
    )
    watcher().step(f"distilling run {job.run}", "step")
    total = config.distill.encoder_steps + config.distill.prompt_steps
    return distill(job, watch=lambda step, loss: watcher().count(step, total))
