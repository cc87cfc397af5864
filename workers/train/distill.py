"""The distillation loop: teacher and student over a generation's pictures, checkpointed like a training.

One process; the teacher's embeddings are made as they are needed, or read where they are kept. It doesn't
know several machines: a student is small, and what takes the time is the teacher's encoder.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.segmenters.student import save_student
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.settings.train import DistillSettings, TrainSettings
from maskmill.pipeline.train.distill import STUDENTS, Projection, encoder_loss, prompt_loss, start_student
from maskmill.pipeline.train.images import train_image
from maskmill.pipeline.train.shapes import load_trainable
from maskmill.pipeline.train.tune import learning_rate
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
from maskmill.storage.stores.open import open_store
from maskmill.workers.reading.kept_embeddings import KeptEmbeddings
from maskmill.workers.train.loop import TrainingDiverged
from maskmill.workers.train.stream import Place, RawImage, TrainStream


@dataclass(frozen=True, kw_only=True)
class DistillJob:
    """A distillation.

    Attributes:
        root: the dataset's.
        generation: whose pictures and masks it uses.
        teacher: a model that can be trained (see pipeline/train/shapes.py).
        student: one of `STUDENTS`.
        settings: of the distillation.
        run: names its checkpoints; the same run goes on.
        facts: for the student's card.
    """

    root: str
    generation: int
    teacher: SegmenterSettings
    student: str
    settings: DistillSettings
    run: str
    facts: Mapping[str, Any] = field(default_factory=dict)


Watch = Callable[[int, float], None]


def distill(job: DistillJob, *, watch: Watch = lambda step, loss: None) -> ModelCard:
    """Distils to the end, from the last checkpoint if there is one.

    Args:
        job: what to distil.
        watch: told each step and its loss.

    Returns:
        The student's card; it is kept as a model of the dataset.

    Raises:
        InputError: an unknown student, fewer images than a batch, or no kept embeddings to read.
        TrainingDiverged: a loss that is no number.
    """
    if job.student not in STUDENTS:
        raise InputError(f"student {job.student!r} is unknown: use one of {', '.join(STUDENTS)}")
    loop = _Loop(job)
    loop.resume()
    loop.run(watch)
    return loop.finish()


class _Loop:
    """Models, optimiser, place, curve."""

    def __init__(self, job: DistillJob) -> None:
        self.job, self.settings, self.store = job, job.settings, open_store(job.root)
        s = job.settings

        # What is learned from
        generation = load_generation(self.store, job.generation)
        self.reads = TrainSettings(batch=s.batch, masks=s.masks, seed=s.seed, min_area_px=4, flips=not s.kept)
        self.stream = TrainStream(self.store, generation, self.reads)
        self.kept = KeptEmbeddings(self.store, generation, job.teacher) if s.kept else None
        if self.kept is not None and not self.kept.shards:
            raise InputError(
                f"{job.root}: generation {job.generation} keeps no embeddings of the teacher "
                f"{job.teacher.model}; make them (--set embeddings.keep=float16), or leave distill.kept off"
            )
        if last_checkpoint(self.store, job.run) is None:
            self.stream.check_enough(s.batch)

        # Teacher, student, and what takes the one's embedding to the other's
        self.device = choose_device(job.teacher.device)
        self.teacher = load_trainable(job.teacher).eval().requires_grad_(False).to(self.device)
        self.config = STUDENTS[job.student]
        self.student = start_student(self.config, self.teacher, s.seed).to(self.device)
        dims = (self.config.embed_dim, int(self.teacher.prompt_encoder.embed_dim))
        self.projection = Projection(*dims).to(self.device)

        # Weight decay for matrices alone
        learning = [*self.student.parameters(), *self.projection.parameters()]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in learning if p.ndim > 1], "weight_decay": s.weight_decay},
                {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=s.lr,
        )

        self.place, self.step, self.curve = Place(), 0, list[float]()

    @property
    def steps(self) -> int:
        """Of both stages: the encoder's and the prompts'."""
        return self.settings.encoder_steps + self.settings.prompt_steps

    def resume(self) -> None:
        """Takes up the run's last checkpoint."""
        found = last_checkpoint(self.store, self.job.run)
        if found is None:
            return
        data = io.BytesIO(read_checkpoint(self.store, found))
        held = torch.load(data, map_location="cpu", weights_only=True)
        self.student.load_state_dict(held["student"])
        self.projection.load_state_dict(held["projection"])
        self.optimiser.load_state_dict(held["optimiser"])
        self.place, self.step, self.curve = Place(**held["place"]), int(held["step"]), list(held["curve"])

    def run(self, watch: Watch) -> None:
        """Steps until both stages are done."""
        items = self.stream.items(self.place)
        while self.step < self.steps:
            batch = list(islice(items, self.settings.batch))
            loss = self._step([(place.number - 1, raw) for place, raw in batch])
            self.place = batch[-1][0]
            self.curve.append(loss)
            watch(self.step, loss)
            if self.step % self.settings.checkpoint_every == 0 or self.step == self.steps:
                self._save()

    def finish(self) -> ModelCard:
        """Keeps the student as a model of the dataset."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "student.safetensors"
            save_student(self.student.eval(), self.config, path)
            return add_model(
                self.store,
                path,
                model="nano",
                trained={
                    **self.job.facts,
                    "distilled": self.job.student,
                    "generation": self.job.generation,
                    "settings": asdict(self.settings),
                    "images_seen": self.place.number,
                    "curve": [round(loss, 5) for loss in self.curve[:: max(1, len(self.curve) // 200)]],
                },
                created_utc=now_utc(),
                run=self.job.run,
            )

    def _step(self, batch: list[tuple[int, RawImage]]) -> float:
        settings = self.settings
        in_prompts = self.step >= settings.encoder_steps
        stage = settings.prompt_steps if in_prompts else settings.encoder_steps
        done = self.step - (settings.encoder_steps if in_prompts else 0)
        rate = learning_rate(TrainSettings(steps=max(1, stage), lr=settings.lr, warmup=settings.warmup), done)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        losses = [loss for number, raw in batch if (loss := self._loss(number, raw, in_prompts)) is not None]
        if losses:
            total = torch.stack(losses).mean()
            if not math.isfinite(float(total.detach())):
                keys = ", ".join(raw.key for _, raw in batch)
                found = last_checkpoint(self.store, self.job.run)
                kept = f"the checkpoint of step {found.step} is kept" if found else "no checkpoint was made"
                raise TrainingDiverged(
                    f"step {self.step + 1}: the loss is {float(total.detach())} (images {keys}); {kept}. "
                    "Lower distill.lr"
                )
            total.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
            self.optimiser.step()
        self.step += 1
        return float(total.detach()) if losses else 0.0

    def _loss(self, number: int, raw: RawImage, in_prompts: bool) -> Tensor | None:
        labelled = raw.labelled()
        own, theirs = (int(sam.image_encoder.img_size) for sam in (self.student, self.teacher))
        image = train_image(labelled, number, own, self.reads)
        large = image if theirs == own else train_image(labelled, number, theirs, self.reads)
        if image is None or large is None:
            return None
        wanted = self._wanted(raw.key, large.image_3SS)
        got = self.student.image_encoder(torch.from_numpy(image.image_3SS)[None].to(self.device))
        if not in_prompts:
            return encoder_loss(self.projection(got, wanted.shape[-1]), wanted)
        return prompt_loss(self.teacher, self.student, wanted, got, image, self.settings)

    @torch.no_grad()
    def _wanted(self, key: str, image_3SS: NDArray[np.float32]) -> Tensor:
        """The teacher's embedding of a picture: float32[1, C, h, w]."""
        kept = self.kept.get(key) if self.kept is not None else None
        if kept is not None:
            return kept.features_CHW[None].to(self.device)
        embedding: Tensor = self.teacher.image_encoder(torch.from_numpy(image_3SS)[None].to(self.device))
        return embedding

    def _save(self) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "student": self.student.state_dict(),
                "projection": self.projection.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "place": asdict(self.place),
                "step": self.step,
                "curve": self.curve,
            },
            buffer,
        )
        facts = {"loss": self.curve[-1]}
        save_checkpoint(self.store, self.job.run, self.step, buffer.getvalue(), facts=facts)
