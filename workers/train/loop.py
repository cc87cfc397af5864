"""The training loop of one worker, without Ray: stream, descend, checkpoint, finish.

All workers see the same sequence of images and take every n-th as their own; gradients are averaged by DDP,
so a batch's step is the same however many share it, to rounding. Everything drawn belongs to an image's
number, so nothing random has to be kept: a checkpoint holds weights, optimiser, the place in the sequence
and the curve, and a training that was killed ends with the weights of one that was not (on a CPU with the
same threads).

A loss that is no number stops the run before it touches the weights; the last checkpoint stays.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train import tune
from maskmill.pipeline.train.asked import TrainImage
from maskmill.pipeline.train.images import train_image
from maskmill.pipeline.train.recipe import FirstAnswers, first_answers, image_loss
from maskmill.pipeline.train.scores import calibrate, check_curve, fit_scores
from maskmill.pipeline.train.shapes import load_trainable, save_trained
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.dataset.model_versions import (
    ModelCard,
    add_model,
    last_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from maskmill.storage.errors import InputError
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.dataset_models import bring
from maskmill.workers.run.events import RunStopped
from maskmill.workers.shard.ahead import map_ahead
from maskmill.workers.train.stream import Place, RawImage, TrainStream

DECODE_THREADS = 2
SCORED_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """A training, cheap to pickle.

    Attributes:
        root: the dataset's.
        generation: number of the one to train on.
        segmenter: the model to start from; its weights are a local file of every machine, or the shipped one.
        settings: of the training.
        run: names its checkpoints; the same run goes on.
        facts: for the model's card.
    """

    root: str
    generation: int
    segmenter: SegmenterSettings
    settings: TrainSettings
    run: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepFigures:
    """What a step says of itself."""

    step: int
    loss: float
    first_iou: float
    last_iou: float
    lr: float


Watch = Callable[[StepFigures], None]


class TrainingDiverged(RunStopped):
    """The loss is no number; says where and what to try."""


def train(
    job: TrainJob, *, rank: int = 0, world: int = 1, watch: Watch = lambda figures: None
) -> ModelCard | None:
    """Trains to the end, from the last checkpoint if there is one.

    Args:
        job: the training.
        rank, world: of this worker; with more than one, torch.distributed is ready.
        watch: told every step.

    Returns:
        The new model's card; None on workers but the first.

    Raises:
        InputError: too few images, or a batch that the workers can't share.
        TrainingDiverged: a loss that is no number.
        StorageError: what is read or written can't be.
    """
    if job.settings.batch % world:
        raise InputError(
            f"retrain.batch={job.settings.batch} images can't be shared by {world} workers: use a multiple"
        )
    store = open_store(job.root)
    bring(store, job.segmenter)
    loop = _Loop(job, store, rank, world)
    loop.resume()
    loop.run(watch)
    return loop.finish() if rank == 0 else None


class _Model(nn.Module):
    """Encoder and recipe as one module, so that DDP sees one forward pass."""

    def __init__(self, sam: Sam, settings: TrainSettings) -> None:
        super().__init__()
        self.sam, self._settings = sam, settings

    def forward(self, images: Sequence[TrainImage]) -> tuple[Tensor, list[tuple[float, float]]]:
        """The summed loss of some images, and (first, last) IoU of each."""
        device = next(self.sam.parameters()).device
        pixels = torch.stack([torch.from_numpy(image.image_3SS) for image in images]).to(device)
        use = self._settings.number == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=use):
            with torch.no_grad() if self._settings.encoder == "frozen" else nullcontext():
                embedding = self.sam.image_encoder(pixels)
            each = [
                image_loss(self.sam, embedding[i : i + 1], image, self._settings)
                for i, image in enumerate(images)
            ]
        total = torch.stack([one.loss for one in each]).sum()
        return total, [(one.first_iou, one.last_iou) for one in each]


class _Loop:
    """One worker's state: model, optimiser, place, curve."""

    def __init__(self, job: TrainJob, store: ObjectStore, rank: int, world: int) -> None:
        self.job, self.settings, self.store, self.rank, self.world = job, job.settings, store, rank, world
        self.stream = TrainStream(store, load_generation(store, job.generation), self.settings)
        if last_checkpoint(store, job.run) is None:
            self.stream.check_enough(self.settings.batch)
        device = choose_device(job.segmenter.device)
        self.sam = load_trainable(job.segmenter)
        if self.settings.calibrate:
            _check_curve(self.sam)
        tune.prepare(self.sam, self.settings)
        self.sam.to(device)
        self.model: nn.Module = _Model(self.sam, self.settings)
        if world > 1:
            one_round = self.settings.points + self.settings.bare_rounds == 0  # no mask is ever a prompt
            self.model = DistributedDataParallel(self.model, find_unused_parameters=one_round)
        self.optimiser = tune.optimiser_of(self.sam, self.settings)
        self.average = tune.Average(self.sam, self.settings.average) if self.settings.average else None
        self.place, self.step = Place(), 0
        self.curve: list[StepFigures] = []
        self.left_out: Counter[str] = Counter()

    def resume(self) -> None:
        """Takes up the run's last checkpoint."""
        found = last_checkpoint(self.store, self.job.run)
        if found is None:
            return
        held = torch.load(
            io.BytesIO(read_checkpoint(self.store, found)), map_location="cpu", weights_only=True
        )
        learning = dict(tune.learning(self.sam))
        with torch.no_grad():
            for name, value in held["weights"].items():
                learning[name].copy_(value)
        self.optimiser.load_state_dict(held["optimiser"])
        if self.average is not None:
            for name, value in held["average"].items():
                self.average.weights[name].copy_(value)
        self.place, self.step = Place(**held["place"]), int(held["step"])
        self.curve = [StepFigures(**row) for row in held["curve"]]
        self.left_out = Counter(held["left_out"])

    def run(self, watch: Watch) -> None:
        """Steps until the settings' number is done."""
        if self.step >= self.settings.steps:
            return
        with ThreadPoolExecutor(DECODE_THREADS, "decode") as pool:
            batches = self._batches()
            ahead = map_ahead(pool, self._decoded, batches, 1)
            for place, images, keys in ahead:
                figures = self._step(images, keys)
                self.place = place
                self.curve.append(figures)
                if self.rank == 0:
                    watch(figures)
                due = self.step % self.settings.checkpoint_every == 0 or self.step == self.settings.steps
                if due and self.rank == 0:
                    self._save()
                if self.step == self.settings.steps:
                    break
            ahead.close()

    def finish(self) -> ModelCard:
        """Keeps the trained weights as a model of the dataset."""
        if self.average is not None:
            self.average.put()
        scored = self._scored()
        state = {name: value.cpu() for name, value in tune.merged_state(self.sam).items()}
        with tempfile.TemporaryDirectory() as folder:
            path = save_trained(state, self.job.segmenter, Path(folder))
            return add_model(
                self.store,
                path,
                model=self.job.segmenter.model,
                trained={
                    **self.job.facts,
                    "generation": self.job.generation,
                    "settings": asdict(self.settings),
                    "images_seen": self.place.number,
                    "masks_left_out": dict(self.left_out),
                    "curve": _thinned(self.curve),
                    **scored,
                },
                created_utc=now_utc(),
                run=self.job.run,
            )

    def _scored(self) -> dict[str, Any]:
        """Fits what the model says of its masks, by the sequence's first pictures; facts for the card."""
        settings, head = self.settings, self.sam.mask_decoder.iou_prediction_head
        if not (settings.score_steps or settings.calibrate):
            return {}
        self.sam.eval()
        asked, facts = self._asked(), dict[str, Any]()
        if settings.score_steps:
            fit = fit_scores(head, asked, steps=settings.score_steps, seed=settings.seed)
            facts["scores"] = None if fit is None else asdict(fit)
        if settings.calibrate:
            fit = calibrate(head, asked)
            facts["calibration"] = None if fit is None else asdict(fit)
        return facts

    def _asked(self) -> list[FirstAnswers]:
        """Answers to a point of each mask of some pictures, each once and in its plain view."""
        plain = replace(self.settings, flips=False, looks=0.0, crops=0.0, box_share=0.0)
        size, seen, asked = int(self.sam.image_encoder.img_size), set[str](), list[FirstAnswers]()
        for place, raw in self.stream.items(Place()):
            if place.epoch or len(seen) == SCORED_IMAGES:
                break
            image = None
            if raw.key not in seen:
                image = train_image(raw.labelled(), place.number - 1, size, plain)
            seen.add(raw.key)
            if image is not None:
                asked.append(first_answers(self.sam, image, plain))
        return asked

    def _batches(self) -> Iterator[tuple[Place, list[tuple[int, RawImage]], str]]:
        """Each step's own images with their numbers, and the place after the whole batch."""
        batch: list[tuple[int, RawImage]] = []
        for place, raw in self.stream.items(self.place):
            batch.append((place.number - 1, raw))
            if len(batch) == self.settings.batch:
                keys = ", ".join(raw.key for _, raw in batch[:4])
                yield place, batch[self.rank :: self.world], keys
                batch = []

    def _decoded(
        self, batch: tuple[Place, list[tuple[int, RawImage]], str]
    ) -> tuple[Place, list[TrainImage], str]:
        place, raws, keys = batch
        size = int(self.sam.image_encoder.img_size)
        images = [
            train_image(raw.labelled(), number, size, self.settings, self.left_out) for number, raw in raws
        ]
        return place, [image for image in images if image is not None], keys

    def _step(self, images: Sequence[TrainImage], keys: str) -> StepFigures:
        settings = self.settings
        torch.manual_seed(hash((settings.seed, self.step, self.rank)) & (2**63 - 1))  # drop path alone
        rate = tune.learning_rate(settings, self.step)
        tune.set_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        parts = [images[i : i + settings.micro_batch] for i in range(0, len(images), settings.micro_batch)]
        total, ious, share = 0.0, list[tuple[float, float]](), settings.batch // self.world
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            syncs = last or not isinstance(self.model, DistributedDataParallel)
            with nullcontext() if syncs else self.model.no_sync():  # type: ignore[operator]
                loss, found = self.model(part)
                (loss / share).backward()
            total += float(loss.detach())
            ious += found
        if not parts and self.world > 1:
            raise InputError(f"no image of a worker's share has a mask at the model's size ({keys})")
        figures = self._shared(total / share, ious)
        norm = self._clipped()
        if not (math.isfinite(figures[0]) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"step {self.step + 1}: loss {figures[0]}, the gradient's norm {norm} (images {keys}). "
                f"{self._kept()} Lower retrain.lr, set retrain.clip, or look at these images' masks"
            )
        if parts:
            self.optimiser.step()
        self.step += 1
        if self.average is not None:
            self.average.follow(self.step)
        return StepFigures(self.step, *figures, rate)

    def _kept(self) -> str:
        found = last_checkpoint(self.store, self.job.run)
        return f"The checkpoint of step {found.step} is kept." if found else "No checkpoint was made yet."

    def _clipped(self) -> float:
        most = self.settings.clip if self.settings.clip is not None else math.inf
        learning = [one for _, one in tune.learning(self.sam)]
        return float(torch.nn.utils.clip_grad_norm_(learning, most))

    def _shared(self, loss: float, ious: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
        """Loss and IoUs over all workers."""
        count = len(ious)
        sums = torch.tensor(
            [loss, sum(a for a, _ in ious), sum(b for _, b in ious), count], dtype=torch.float64
        )
        if self.world > 1:
            sums = sums.to(next(self.sam.parameters()).device)
            dist.all_reduce(sums)
        given = max(1.0, float(sums[3]))
        return float(sums[0]) / self.world, float(sums[1]) / given, float(sums[2]) / given

    def _save(self) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "weights": {name: one.detach().cpu() for name, one in tune.learning(self.sam)},
                "optimiser": self.optimiser.state_dict(),
                "average": None
                if self.average is None
                else {name: one.cpu() for name, one in self.average.weights.items()},
                "place": asdict(self.place),
                "step": self.step,
                "curve": [asdict(row) for row in self.curve],
                "left_out": dict(self.left_out),
            },
            buffer,
        )
        facts = {"loss": self.curve[-1].loss} if self.curve else {}
        save_checkpoint(self.store, self.job.run, self.step, buffer.getvalue(), facts=facts)


def _check_curve(sam: Sam) -> None:
    try:
        check_curve(sam.mask_decoder.iou_prediction_head)
    except ValueError as exc:
        raise InputError(str(exc)) from exc


def _thinned(curve: Sequence[StepFigures], most: int = 200) -> list[dict[str, float]]:
    """At most so many rows of a curve, the last one always."""
    every = max(1, math.ceil(len(curve) / most))
    rows = [row for i, row in enumerate(curve) if (len(curve) - 1 - i) % every == 0]
    return [asdict(row) for row in rows]


def weights_of(settings: SegmenterSettings) -> str:
    """The sha256 of the weights that a training starts from. Raises WeightsError."""
    return weights_identity(settings)
