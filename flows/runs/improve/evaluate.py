"""The run `evaluate`: measures a segmenter, or compares, audits or asks a generation.

Only an audit writes to the dataset, and holds the writer's lock: its figures go on the generation's card.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import ConfigError, RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.report.words import figure_name
from maskmill.flows.runs.steps.holding import writing
from maskmill.pipeline.settings import EvaluateSettings
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.dataset.picture_sets import load_set
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.errors import InputError
from maskmill.storage.plan.plan import planned
from maskmill.storage.stores.open import open_store
from maskmill.workers.run import dataset_models as models

if TYPE_CHECKING:
    from maskmill.pipeline.settings import SegmenterSettings
    from maskmill.workers.foreign.truth import TruthSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What to measure.

    Attributes:
        segmenter: "MODEL", "MODEL=WEIGHTS" or "promoted"; None is the settings' own.
        coco, images, boxes: one set with ground truth.
        suite: a manifest of sets.
        scenes: generated scenes, held back from training.
        bsds: folders of pictures and .mat edge maps.
        dataset: whose promoted model is meant, whose generation is audited.
        generation: of `audit` and `text`; None is the latest.
        agree: two generations to compare. audit: hold the generation's masks against the truth, or its
            reviews. text: hold its labels against the truth.
        only: the name of a set of pictures, of which an audit draws; "" is all.
        out: folder for files; None writes none.
    """

    segmenter: str | None = None
    coco: Path | None = None
    images: Path | None = None
    boxes: Path | None = None
    suite: Path | None = None
    scenes: int = 0
    bsds: tuple[Path, Path] | None = None
    dataset: str | None = None
    generation: int | None = None
    agree: tuple[int, int] | None = None
    audit: bool = False
    only: str = ""
    text: bool = False
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


def evaluate(question: Question, config: RunConfig) -> dict[str, Any]:
    """Answers a question: one of `compare_generations`, `measure_text`, `audit_generation` and `measure`.

    Args:
        question: what to measure.
        config: [segmenter] and [evaluate].

    Raises:
        InputError: what is to be read can't be, or no dataset is named where one is meant.
        ConfigError: an unknown segmenter.
        WeightsError: its weights can't be used.
        WriterBusy: another writer works on the dataset that is to be audited.
    """
    if question.generation is not None and not (question.audit or question.text):
        raise ConfigError("--generation is for --audit and --text: say which of them is meant")
    if question.only and not question.audit:
        raise ConfigError("--only is for --audit: say that it is meant")
    if not (question.agree or question.text or question.audit):
        return measure(named(question.segmenter, config.segmenter), question, config.evaluate)
    if question.dataset is None:
        raise InputError("--audit, --text and --agree look at a dataset: name it first")

    if question.agree is not None:
        return compare_generations(question.dataset, *question.agree)
    if question.text:
        return measure_text(question.dataset, question.generation, question)
    return audit_generation(question.dataset, question.generation, question, config.evaluate)


def named(identity: str | None, settings: SegmenterSettings) -> SegmenterSettings:
    """Settings with the model that `MODEL`, `MODEL=WEIGHTS` or "promoted" names; as they are for None.

    Raises:
        ConfigError: an unknown model.
    """
    if identity is None:
        return settings
    if identity == "promoted":
        return dataclasses.replace(settings, weights=identity)

    model, _, weights = identity.partition("=")
    same = model == settings.model
    try:
        return dataclasses.replace(
            settings, model=model, weights=weights or (settings.weights if same else None)
        )
    except ValueError as exc:
        raise ConfigError(f"--segmenter {identity}: {exc}") from exc


def measure(segmenter: SegmenterSettings, question: Question, settings: EvaluateSettings) -> dict[str, Any]:
    """Measures; returns all figures, and the names of the files written.

    Raises:
        InputError, WeightsError: what is to be read can't be.
        NoSuchThing: no dataset is there.
    """
    from maskmill.workers.measure.evaluate import look_at, write
    from maskmill.workers.measure.evaluate import measure as measure_asked

    sets = question.sets()
    if question.dataset is not None:
        planned(open_store(question.dataset))
        segmenter = models.in_force(open_store(question.dataset), segmenter)
    elif segmenter.weights == models.PROMOTED:
        raise InputError("--segmenter promoted is a dataset's: name the dataset first")
    asked = look_at(sets, settings, scenes=question.scenes, bsds=question.bsds)
    watcher().step("measuring", "image")
    found = measure_asked(models.load(segmenter), asked, settings, progress=watcher().count)
    files = write(found, question.out) if question.out is not None else []
    return {
        "segmenter": segmenter.model,
        "weights": segmenter.weights,
        **found.figures(),
        "files": [str(path) for path in files],
    }


def compare_generations(dataset: str, first: int, second: int) -> dict[str, Any]:
    """How much two generations agree.

    Raises:
        ObjectNotFound: there is none of a number.
    """
    from maskmill.workers.measure.audit import agreement

    store = open_store(dataset)
    return dataclasses.asdict(agreement(store, load_generation(store, first), load_generation(store, second)))


def audit_generation(
    dataset: str, number: int | None, question: Question, settings: EvaluateSettings
) -> dict[str, Any]:
    """Audits a generation and puts the result on its card.

    Raises:
        WriterBusy: another writer works on the dataset.
        InputError: more than one set, or one that can't be read.
    """
    from maskmill.workers.measure.audit import audit, put_on_card

    store, sets = open_store(dataset), question.sets()
    if len(sets) > 1:
        raise InputError("an audit holds a generation against one set: give --coco and --images alone")
    generation = find_generation(store, number)

    with writing(dataset, "audit"):
        found = audit(
            store,
            generation,
            sets[0] if sets else None,
            max_images=settings.max_images or 500,
            seed=settings.seed,
            only=load_set(store, question.only).keys if question.only else None,
        )
        return {**dataclasses.asdict(found), "card": put_on_card(store, found, created_utc=now_utc())}


def measure_text(dataset: str, number: int | None, question: Question) -> dict[str, Any]:
    """How well a generation's labels find the true masks of their names.

    Raises:
        InputError: no set or more than one, or one that can't be read.
    """
    from maskmill.workers.measure.text_to_mask import text_to_mask

    sets = question.sets()
    if len(sets) != 1:
        raise InputError("--text holds a generation's labels against one set: give --coco and --images")
    store = open_store(dataset)
    return dataclasses.asdict(text_to_mask(store, find_generation(store, number), sets[0]))


def figure_lines(figures: dict[str, Any], names: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Plain numbers of a result for people, in order."""
    return [
        (figure_name(name), f"{value:.4f}" if isinstance(value, float) else f"{value:,}")
        for name, value in figures.items()
        if isinstance(value, int | float) and (not names or name in names)
    ]
