"""The loop: annotate, review, retrain, gate, promote, annotate again.

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
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.evaluate import Question, measure, now_utc
from maskmill.pipeline.checks import finite

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
        truth: what the oracle knows: annotations and pictures; None without an oracle.
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


def run_loop(plan: LoopPlan, config: RunConfig, *, workers: int = 1, out: Path | None = None) -> LoopReport:
    """Runs what is left of a loop.

    Args:
        plan: what it is.
        config: of all its steps.
        workers: training processes.
        out: folder for the report; None writes none.

    Raises:
        ConfigError, InputError, StorageError, RunStopped: with the cause and the cure.
    """
    from maskmill.storage.dataset.model_versions import SHIPPED, promoted
    from maskmill.storage.stores.base import open_store

    store = open_store(plan.dataset)
    name = loop_name(plan, config)
    before = _once(store, name, 0, lambda: {"figures": _figures(plan, config), "created_utc": now_utc()})
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
    from maskmill.storage.dataset.columns import fingerprint

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
    from maskmill.flows.runs.gate import judge
    from maskmill.flows.runs.retrain import plan_training, run_training

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
    from maskmill.flows.services.startup import run_generate

    return run_generate(plan.dataset, list(plan.inputs), config, limit=None, export_to=None).generation


def _review(plan: LoopPlan, config: RunConfig) -> dict[str, Any] | None:
    if plan.truth is None or not config.loop.reviewed:
        return None
    return review(plan.dataset, plan.truth, config)


def review(dataset: str, truth: tuple[Path, Path], config: RunConfig) -> dict[str, Any]:
    """Reviews images of the latest generation, by [loop], and publishes the next one with the reviews.

    Args:
        dataset: its root.
        truth: annotations and pictures: what the oracle knows, or a person's own masks.
        config: [segmenter], which answers the oracle's clicks, and [loop].

    Raises:
        InputError: fewer images with truth than are to be reviewed.
    """
    from maskmill.flows.runs.steps import generation_of
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.foreign.truth import TruthSet
    from maskmill.workers.jobs.review import review_by_oracle
    from maskmill.workers.run import dataset_models as models
    from maskmill.workers.train.loop import weights_of

    store = open_store(dataset)
    settings = models.in_force(store, config.segmenter)
    given = config.loop.review_mode == "given"
    watcher().step("reviewing")
    report = review_by_oracle(
        store,
        generation_of(dataset),
        TruthSet(truth[0].stem, *truth),
        None if given else models.load(settings),
        config.loop,
        weights="given" if given else weights_of(settings),
        created_utc=now_utc(),
        progress=watcher().count,
    )
    return dataclasses.asdict(report)


def _settle(store: ObjectStore, found: dict[str, Any]) -> None:
    """Promotes what a recorded round earned, once: a person may have gone back since.

    After the record, so that a loop that is stopped in between doesn't begin the round again with its own
    outcome.
    """
    from maskmill.storage.dataset.model_versions import promote, promotions

    if found["passed"] and all(one.model != found["model"] for one in promotions(store)):
        promote(store, found["model"], why=str(found["why"]), created_utc=now_utc())


def _figures(plan: LoopPlan, config: RunConfig) -> dict[str, Any]:
    question = Question(coco=plan.gate[0], images=plan.gate[1], dataset=plan.dataset)
    found = measure(config.segmenter, question, dataclasses.replace(config.evaluate, failures=0))
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _once(store: ObjectStore, name: str, number: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A round's record: as it is stored, or made now."""
    from maskmill.storage.errors import ObjectNotFound

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
