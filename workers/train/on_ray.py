"""The thin Ray Train shell around training.py: N workers, DDP between them, a lost one begins again.

Ray Train brings up the process group and starts all workers again when one is lost; they go on from the last
checkpoint in storage, so nothing is kept in Ray's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from maskmill.storage.dataset.model_versions import ModelCard, list_models
from maskmill.storage.errors import StorageError
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.events import RunStopped
from maskmill.workers.train.loop import TrainJob, train

RETRIES = 2


def train_on_ray(
    job: TrainJob,
    *,
    num_workers: int,
    num_cpus: float = 1.0,
    use_gpu: bool = False,
    loop: Callable[[dict[str, Any]], None] | None = None,
) -> ModelCard:
    """Trains on a connected cluster.

    Args:
        job: the training.
        num_workers: processes; each takes its part of every batch.
        num_cpus: of each.
        use_gpu: a GPU each.
        loop: what a worker runs; `train_worker` by default.

    Returns:
        The new model's card.

    Raises:
        RunStopped: the training failed `RETRIES` times more, or for a reason that trying again won't change.
    """
    with tempfile.TemporaryDirectory(prefix="maskmill-train-") as folder:
        trainer = TorchTrainer(
            loop or train_worker,
            train_loop_config={"job": job},
            scaling_config=ScalingConfig(
                num_workers=num_workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": num_cpus, **({"GPU": 1} if use_gpu else {})},
            ),
            run_config=RunConfig(
                name=job.run,
                storage_path=folder,
                failure_config=FailureConfig(max_failures=RETRIES),
            ),
        )

        try:
            trainer.fit()
        except ray.train.TrainingFailedError as exc:
            raise RunStopped(f"training {job.run} failed: {_cause(exc)}") from exc

    return next(card for card in list_models(open_store(job.root)) if card.run == job.run)


def train_worker(config: dict[str, Any]) -> None:
    """What each of Ray Train's workers runs."""
    import torch

    context = ray.train.get_context()
    torch.set_num_threads(max(1, config["job"].segmenter.threads or 1))
    train(config["job"], rank=context.get_world_rank(), world=context.get_world_size())


def _cause(error: BaseException) -> str:
    """The error of ours behind it, else the last line of what Ray says."""
    behind: list[BaseException] = [error, *getattr(error, "worker_failures", {}).values()]
    while behind:
        one = behind.pop(0)
        if isinstance(one, StorageError | RunStopped):
            return str(one)
        behind += [cause for cause in (one.__cause__, getattr(one, "cause", None)) if cause is not None]
    return str(error).strip().splitlines()[-1]
