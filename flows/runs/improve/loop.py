"""The run `loop`: annotate, review, retrain, gate, promote, annotate again, under the writer's lock.

Every round's outcome is a put-if-absent record, and every step before it goes on from storage, so a loop that
was stopped anywhere is continued by running it again. Its name is a fingerprint of its settings; another
setting is another loop, on the same dataset.

    loops/loop-<name>/000000.json     before the first round: the model in force, measured
    loops/loop-<name>/000001.json     a round: generation, review, model, decision, figures
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.deployments.quick_start import run_generate  # Prefect's, where its record is kept
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.improve.evaluate import Question, measure
from maskmill.flows.runs.improve.retrain import plan_training, run_training
from maskmill.flows.runs.improve.review import take_reviews, take_saves
from maskmill.flows.runs.steps.gate import judge
from maskmill.flows.runs.steps.holding import writing
from maskmill.flows.runs.steps.planning import check_inputs, plan_images
from maskmill.pipeline.checks import finite
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.model_versions import SHIPPED, promote, promoted, promotions
from maskmill.storage.dataset.records import fingerprint
from maskmill.storage.errors import ObjectNotFound
from maskmill.storage.stores.open import open_store
from maskmill.workers.run import dataset_models as models

if TYPE_CHECKING:
    from maskmill.storage.stores.base import ObjectStore

FOLDER = "loops"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopPlan:
    """What a loop is.

    Attributes:
        dataset: its root.
        inputs: images to annotate.
        rounds: how many.
        gate: annotations and pictures that rounds are judged on; none of them may be among the inputs.
        truth: what the oracle knows: annotations and pictures; None without an oracle: people review.
    """

    dataset: str
    inputs: tuple[str, ...]
    rounds: int
    gate: tuple[Path, Path]
    truth: tuple[Path, Path] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopReport:
    """What came of it.

    Attributes:
        loop: its name.
        before: figures of the model that it began with, on the gate set.
        rounds: a record each.
        promoted: the model in force now; 0 is the shipped one.
        generation: the last one, annotated by it.
        files: curve and figures, where a folder was given.
    """

    dataset: str
    loop: str
    before: dict[str, Any]
    rounds: tuple[dict[str, Any], ...]
    promoted: int
    generation: int | None
    files: tuple[str, ...] = ()


def loop(
    plan: LoopPlan, config: RunConfig, *, workers: int = 1, out: Path | None = None, wait_s: float = 0.0
) -> LoopReport:
    """Runs what is left of a loop.

    Args:
        plan: what it is.
        config: of all its steps.
        workers: training processes.
        out: folder for the report; None writes none.
        wait_s: how long to wait for another writer of this dataset, seconds; 0 is refused at once.

    Raises:
        WriterBusy: another writer works on the dataset.
        InputError: [loop] asks for more reviews than people made, and there is no oracle to make them.
        StorageError, RunStopped: with the cause and the cure.
    """
    check_inputs(plan.dataset, plan.inputs)
    with writing(plan.dataset, "loop", wait_s=wait_s, makes=True):
        return run_loop(plan, config, workers=workers, out=out)


def run_loop(plan: LoopPlan, config: RunConfig, *, workers: int = 1, out: Path | None = None) -> LoopReport:
    """As `loop`, for who holds the lock.

    Raises:
        ConfigError, InputError, StorageError, RunStopped: with the cause and the cure.
    """
    store = open_store(plan.dataset)
    if config.loop.reviewed and plan.truth is None:
        take_saves(plan.dataset, least=config.loop.reviewed)  # too few: said before any work
    name = loop_name(plan, config)
    before = _once(store, name, 0, partial(_before, plan, config))

    rounds = []
    for number in range(1, plan.rounds + 1):
        watcher().step(f"round {number} of {plan.rounds}")
        make = partial(_round, plan, _of_round(config, number), workers)
        rounds.append(_once(store, name, number, make))
        _settle(store, rounds[-1])

    last = _annotate(plan, config)
    now = promoted(store)
    report = LoopReport(
        dataset=plan.dataset,
        loop=name,
        before=before["figures"],
        rounds=tuple(rounds),
        promoted=now.model if now else SHIPPED,
        generation=last,
    )
    if out is None:
        return report
    return dataclasses.replace(report, files=tuple(write_report(report, config.gate.figure, out)))


def loop_name(plan: LoopPlan, config: RunConfig) -> str:
    """16 digits that change when the loop's outcome may; the number of rounds doesn't, so rounds can be
    added."""
    facts = {
        "inputs": list(plan.inputs),
        "gate": str(plan.gate[0]),
        "truth": str(plan.truth[0]) if plan.truth else None,
        **config.model_dump(
            mode="json", include={"ingest", "segmenter", "masks", "retrain", "gate", "loop", "evaluate"}
        ),
    }
    return fingerprint(facts, weights=None, revision=1, inputs={})


def _of_round(config: RunConfig, number: int) -> RunConfig:
    """Each round draws anew: after a refused one the next would otherwise be the same again."""
    seed = config.retrain.seed + number - 1
    return config.model_copy(update={"retrain": dataclasses.replace(config.retrain, seed=seed)})


def _round(plan: LoopPlan, config: RunConfig, workers: int) -> dict[str, Any]:
    """Annotate with the model in force, review, retrain, gate."""
    generation = _annotate(plan, config)
    reviewed = _review(plan, config)
    if reviewed is not None:
        generation = reviewed["generation"]

    job = plan_training(plan.dataset, generation, config, gate=plan.gate, start=config.loop.start)
    card = run_training(job, config, workers=workers)
    earlier = [one for one in card.decisions if one["gate_set"] == plan.gate[0].name]
    decision = earlier[-1] if earlier else judge(plan.dataset, card.number, config, *plan.gate, promote=False)
    return {
        "generation": generation,
        "review": reviewed,
        "model": card.number,
        "passed": decision["passed"],
        "why": decision["why"],
        "overall": decision["overall"],
        "slices": decision["slices"],
        "before": decision["before"],
        "after": decision["after"],
        "created_utc": now_utc(),
    }


def _annotate(plan: LoopPlan, config: RunConfig) -> int | None:
    """The generation of the model in force; nothing is done where it is there."""
    return run_generate(plan.dataset, list(plan.inputs), config, limit=None, export_to=None).generation


def _review(plan: LoopPlan, config: RunConfig) -> dict[str, Any] | None:
    """By the oracle, or what people saved: at least so many pictures."""
    if not config.loop.reviewed:
        return None
    if plan.truth is None:
        return take_saves(plan.dataset, least=config.loop.reviewed)
    return take_reviews(plan.dataset, plan.truth, config)


def _settle(store: ObjectStore, found: dict[str, Any]) -> None:
    """Promotes what a recorded round earned, once: a person may have gone back since.

    After the record, so that a loop that is stopped in between doesn't begin the round again with its own
    outcome.
    """
    if found["passed"] and all(one.model != found["model"] for one in promotions(store)):
        promote(store, found["model"], why=str(found["why"]), created_utc=now_utc())


def _before(plan: LoopPlan, config: RunConfig) -> dict[str, Any]:
    """The model that the loop begins with, measured; what it can't use is said before any model is loaded."""
    from maskmill.workers.foreign.truth import TruthSet, index_truth

    for given in (plan.gate, plan.truth):
        if given is not None:
            index_truth(TruthSet(given[0].stem, *given))
    watcher().step("looking for images", "file")
    plan_images(plan.dataset, plan.inputs, config, None)
    return {"figures": _figures(plan, config), "created_utc": now_utc()}


def _figures(plan: LoopPlan, config: RunConfig) -> dict[str, Any]:
    """Of the model in force on the gate set, also before there is any dataset."""
    in_force = models.in_force(open_store(plan.dataset), config.segmenter)
    question = Question(coco=plan.gate[0], images=plan.gate[1])
    found = measure(in_force, question, dataclasses.replace(config.evaluate, failures=0))
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _once(store: ObjectStore, name: str, number: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A round's record: as it is stored, or made now."""
    place = f"{FOLDER}/loop-{name}/{number:06d}.json"
    try:
        found: dict[str, Any] = json.loads(store.read(place))
    except ObjectNotFound:
        made = _json(make())
        store.put_if_absent(place, made)
        found = json.loads(store.read(place))
    return found


def write_report(report: LoopReport, figure: str, folder: Path) -> list[str]:
    """loop.json and a curve of the gate's figure per round; returns the files."""
    from maskmill.workers.pictures.plots import Line, line_chart

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loop.json").write_bytes(_json(dataclasses.asdict(report)))
    chart = line_chart(
        "Gate figure by round",
        [Line(name, tuple(points)) for name, points in curves(report, figure)],
        x_label="round (0: before)",
        y_label=figure,
    )
    (folder / "rounds.png").write_bytes(chart)
    return [str(folder / "loop.json"), str(folder / "rounds.png")]


def curves(report: LoopReport, figure: str) -> Sequence[tuple[str, list[tuple[float, float]]]]:
    """The candidates' figure of each round, and that of the model in force after it."""
    start = float(report.before[figure])
    candidates, in_force = [(0.0, start)], [(0.0, start)]
    for number, one in enumerate(report.rounds, 1):
        after = float(one["after"][figure])
        candidates.append((float(number), after))
        in_force.append((float(number), after if one["passed"] else in_force[-1][1]))
    return [("candidate", candidates), ("in force", in_force)]


def _json(value: Any) -> bytes:
    """JSON without NaN."""
    return (json.dumps(finite(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
