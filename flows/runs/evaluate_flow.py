"""`evaluate` under Prefect: the same measurement, its table and pictures kept as artifacts of the run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.report.report import MAX_SHEET_BYTES
from maskmill.flows.runs.evaluate import Question, figure_lines, measure


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
    run = load_config(config) if isinstance(config, str) else config
    question = Question(
        coco=Path(coco) if coco else None,
        images=Path(images) if images else None,
        suite=Path(suite) if suite else None,
        scenes=scenes,
        dataset=dataset,
        out=Path(out),
    )
    figures = measure(run.segmenter, question, run.evaluate)
    show(figures)
    return figures


@task(name="report", cache_policy=NO_CACHE)
def show(figures: dict[str, Any]) -> None:
    """A table of all figures, and each picture that fits into Prefect's database."""
    rows = [{"what": name, "value": value} for name, value in figure_lines(figures)]
    create_table_artifact(rows, key="maskmill-evaluation", description=str(figures["segmenter"]))
    for path in (Path(name) for name in figures["files"] if name.endswith(".png")):
        if path.stat().st_size <= MAX_SHEET_BYTES:
            address = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
            create_image_artifact(address, key=f"maskmill-{path.stem}", description=path.stem)
