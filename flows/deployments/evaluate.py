"""The run `evaluate` as a flow: runs/evaluate.py, its table and pictures kept as artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from maskmill.flows.config import RunConfig
from maskmill.flows.deployments.tasks import config_of
from maskmill.flows.report.report import MAX_SHEET_BYTES, image_artifact
from maskmill.flows.runs.improve import evaluate as run


@flow(name="evaluate", description="Measures a segmenter against ground truth.")
def evaluate(
    coco: str | None = None,
    images: str | None = None,
    suite: str | None = None,
    scenes: int = 0,
    dataset: str | None = None,
    out: str = "evaluation",
    config: RunConfig | str = "nano",
) -> dict[str, Any]:
    """Measures a run's segmenter and leaves artifacts.

    Args:
        coco, images: annotations and the folder of their pictures.
        suite: a manifest of sets.
        scenes: generated scenes to measure on.
        dataset: whose promoted model is meant; None takes the settings' own.
        out: folder for files.
        config: a run, whose [segmenter] and [evaluate] count, or a recipe's name.

    Raises:
        ConfigError, InputError, WeightsError: with the cause and the cure.
    """
    question = run.Question(
        coco=Path(coco) if coco else None,
        images=Path(images) if images else None,
        suite=Path(suite) if suite else None,
        scenes=scenes,
        dataset=dataset,
        out=Path(out),
    )
    figures = run.evaluate(question, config_of(config))
    show(figures)
    return figures


@task(name="report", cache_policy=NO_CACHE)
def show(figures: dict[str, Any]) -> None:
    """A table of all figures, and each picture that fits into Prefect's database."""
    rows = [{"what": name, "value": value} for name, value in run.figure_lines(figures)]
    create_table_artifact(rows, key="maskmill-evaluation", description=str(figures["segmenter"]))
    for path in (Path(name) for name in figures["files"] if name.endswith(".png")):
        if path.stat().st_size <= MAX_SHEET_BYTES:
            image_artifact(path.read_bytes(), key=f"maskmill-{path.stem}", description=path.stem)
