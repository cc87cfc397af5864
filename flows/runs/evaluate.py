"""Measures a segmenter, compares or audits generations; the deployable flow leaves artifacts.

`measure` is the plain function that the command line calls; `evaluate_flow` is the same under Prefect, with a
table and the pictures as artifacts of the run.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.flows.report.report import watcher
from maskmill.pipeline.settings import EvaluateSettings
from maskmill.storage.errors import InputError

if TYPE_CHECKING:
    from maskmill.pipeline.settings import SegmenterSettings
    from maskmill.workers.foreign.truth import TruthSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What to measure.

    Attributes:
        coco, images, boxes: one set with ground truth.
        suite: a manifest of sets.
        scenes: generated scenes, held back from training.
        bsds: folders of pictures and .mat edge maps.
        dataset: whose promoted model is meant, whose generation is audited.
        out: folder for files; None writes none.
    """

    coco: Path | None = None
    images: Path | None = None
    boxes: Path | None = None
    suite: Path | None = None
    scenes: int = 0
    bsds: tuple[Path, Path] | None = None
    dataset: str | None = None
    out: Path | None = None

    def sets(self) -> list[TruthSet]:
        """The sets it names.

        Raises:
            InputError: --coco without --images or the other way round, or an unreadable manifest.
        """
        from maskmill.workers.foreign.truth import TruthSet, read_manifest

        if (self.coco is None) != (self.images is None):
            raise InputError("--coco and --images go together: annotations and the folder of their pictures")
        sets = read_manifest(self.suite) if self.suite else []
        if self.coco is not None and self.images is not None:
            sets.insert(0, TruthSet(self.coco.stem, self.coco, self.images, self.boxes))
        names = [one.name for one in sets]
        if len(set(names)) < len(names):
            raise InputError(f"two sets share a name: {', '.join(sorted(names))}")
        return sets


def measure(segmenter: SegmenterSettings, question: Question, settings: EvaluateSettings) -> dict[str, Any]:
    """Measures; returns all figures, and the names of the files written.

    Raises:
        InputError, WeightsError: what is to be read can't be.
    """
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.measure.evaluate import evaluate, write
    from maskmill.workers.run import dataset_models as models

    sets = question.sets()
    if question.dataset is not None:
        segmenter = models.in_force(open_store(question.dataset), segmenter)
    elif segmenter.weights == models.PROMOTED:
        raise InputError("--segmenter promoted is a dataset's: name the dataset first")
    watcher().step("measuring")
    found = evaluate(
        models.load(segmenter),
        sets,
        settings,
        scenes=question.scenes,
        bsds=question.bsds,
        progress=watcher().count,
    )
    files = write(found, question.out) if question.out is not None else []
    return {
        "segmenter": segmenter.model,
        "weights": segmenter.weights,
        **found.figures(),
        "files": [str(path) for path in files],
    }


def compare_generations(dataset: str, first: int, second: int) -> dict[str, Any]:
    """How much two generations agree."""
    from maskmill.storage.dataset.generations import load_generation
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.measure.audit import agreement

    store = open_store(dataset)
    return dataclasses.asdict(agreement(store, load_generation(store, first), load_generation(store, second)))


def audit_generation(
    dataset: str, number: int | None, question: Question, settings: EvaluateSettings
) -> dict[str, Any]:
    """Audits a generation and puts the result on its card."""
    from maskmill.flows.runs.steps import generation_of
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.measure.audit import audit, put_on_card

    store, sets = open_store(dataset), question.sets()
    if len(sets) > 1:
        raise InputError("an audit holds a generation against one set: give --coco and --images alone")
    found = audit(
        store,
        generation_of(dataset, number),
        sets[0] if sets else None,
        max_images=settings.max_images or 500,
        seed=settings.seed,
    )
    return {**dataclasses.asdict(found), "card": put_on_card(store, found, created_utc=now_utc())}


def measure_text(dataset: str, number: int | None, question: Question) -> dict[str, Any]:
    """How well a generation's labels find the true masks of their names."""
    from maskmill.flows.runs.steps import generation_of
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.measure.text_to_mask import text_to_mask

    sets = question.sets()
    if len(sets) != 1:
        raise InputError("--text holds a generation's labels against one set: give --coco and --images")
    return dataclasses.asdict(text_to_mask(open_store(dataset), generation_of(dataset, number), sets[0]))


def now_utc() -> str:
    """The time, as records keep it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def figure_lines(figures: dict[str, Any], names: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Plain numbers of a result for people, in order."""
    return [
        (name, f"{value:.4f}" if isinstance(value, float) else str(value))
        for name, value in figures.items()
        if isinstance(value, int | float) and (not names or name in names)
    ]
