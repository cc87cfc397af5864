"""The run `review`: people's masks into the dataset, or an oracle's that clicks as they would.

They are a column of their own, which nothing overwrites. The writer's lock is held throughout.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.holding import writing
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.stores.open import open_store
from maskmill.workers.run import dataset_models as models


def review(dataset: str, truth: tuple[Path, Path], config: RunConfig) -> dict[str, Any]:
    """Reviews images of the latest generation, by [loop], and publishes the next one with the reviews.

    Args:
        dataset: its root.
        truth: annotations and pictures: what the oracle knows, or a person's own masks.
        config: [segmenter], which answers the oracle's clicks, and [loop].

    Returns:
        The report's fields.

    Raises:
        WriterBusy: another writer works on the dataset.
        InputError: fewer images with truth than are to be reviewed.
    """
    with writing(dataset, "review"):
        return take_reviews(dataset, truth, config)


def take_reviews(dataset: str, truth: tuple[Path, Path], config: RunConfig) -> dict[str, Any]:
    """As `review`, for who holds the lock: a round of the loop.

    Raises:
        InputError: fewer images with truth than are to be reviewed.
    """
    from maskmill.workers.foreign.truth import TruthSet
    from maskmill.workers.jobs.review import review_by_oracle
    from maskmill.workers.train.loop import weights_of

    store = open_store(dataset)
    settings = models.in_force(store, config.segmenter)
    given = config.loop.review_mode == "given"

    watcher().step("reviewing")
    report = review_by_oracle(
        store,
        find_generation(store),
        TruthSet(truth[0].stem, *truth),
        None if given else models.load(settings),
        config.loop,
        weights="given" if given else weights_of(settings),
        created_utc=now_utc(),
        progress=watcher().count,
    )
    return dataclasses.asdict(report)
