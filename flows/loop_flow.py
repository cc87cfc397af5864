"""`retrain` and `loop` under Prefect: training and gate as coarse tasks, the result as artifacts."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import gate as gating
from flows import retrain as training
from flows.config import RunConfig, load_config
from flows.loop import LoopPlan, LoopReport, run_loop


@flow(name="retrain", description="Fine-tunes the segmenter on a generation, and gates the result.")
def retrain(
    dataset: str,
    generation: int | None = None,
    config: RunConfig | str = "nano",
    workers: int = 1,
    gate: tuple[str, str] | None = None,
    promote: bool = False,
) -> dict[str, Any]:
    """Trains, then judges where a gate set is given.

    Args:
        dataset: its root.
        generation: to train on; None is the latest.
        config: a run, or a recipe's name.
        workers: training processes.
        gate: annotations and pictures.
        promote: put the result in force if the gate accepts it.

    Returns:
        The model's card, and the decision.

    Raises:
        ConfigError, InputError, StorageError, RunStopped: with the cause and the cure.
    """
    run = load_config(config) if isinstance(config, str) else config
    paths = (Path(gate[0]), Path(gate[1])) if gate else None
    job = training.plan_training(dataset, generation, run, gate=paths)
    number = train(job, run, workers)
    decision = judge(dataset, number, run, paths, promote) if paths else None
    if decision is not None:
        rows = [{"what": name, "value": str(decision[name])} for name in ("why", "promoted", "overall")]
        create_table_artifact(rows, key="maskmill-gate", description=f"model {number}")
    return {"model": number, "decision": decision}


@flow(name="loop", description="Annotates, retrains, gates and promotes, round after round.")
def loop(
    dataset: str,
    inputs: list[str],
    gate: tuple[str, str],
    rounds: int = 3,
    truth: tuple[str, str] | None = None,
    config: RunConfig | str = "nano",
    out: str = "loop-report",
) -> LoopReport:
    """Runs what is left of a loop; see flows/loop.py for arguments, result and errors."""
    run = load_config(config) if isinstance(config, str) else config
    plan = LoopPlan(
        dataset=dataset,
        inputs=tuple(inputs),
        rounds=rounds,
        gate=(Path(gate[0]), Path(gate[1])),
        truth=(Path(truth[0]), Path(truth[1])) if truth else None,
    )
    report = run_loop(plan, run, out=Path(out))
    rows = [{"round": i, "model": one["model"], "gate": one["why"]} for i, one in enumerate(report.rounds, 1)]
    create_table_artifact(rows, key="maskmill-loop", description=f"loop {report.loop}")
    for path in (Path(name) for name in report.files if name.endswith(".png")):
        address = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        create_image_artifact(address, key="maskmill-rounds", description="the gate's figure by round")
    return report


@task(name="train", cache_policy=NO_CACHE)
def train(job: Any, config: RunConfig, workers: int) -> int:
    """Trains to the end, or finds it done; the number of the model."""
    return training.run_training(job, config, workers=workers).number


@task(name="gate", cache_policy=NO_CACHE)
def judge(
    dataset: str, number: int, config: RunConfig, gate: tuple[Path, Path], promote: bool
) -> dict[str, Any]:
    """Measures against the model in force, keeps the decision, promotes where earned."""
    return gating.judge(dataset, number, config, *gate, promote=promote)
