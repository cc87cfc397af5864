"""The run `verifier`: a verifier of masks, trained on what people made of a dataset.

It reads, and publishes nothing: the verifier is a file, and a setting names it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.stores.open import open_store
from maskmill.workers.run import dataset_models as models


def train_verifier(dataset: str, config: RunConfig, out: Path, *, scenes: int = 0) -> dict[str, Any]:
    """Trains a verifier on the reviews of now, and writes it to a file.

    Args:
        dataset: its root.
        config: [segmenter], whose masks are judged, and [masks], by which it annotates generated pictures.
        out: the file.
        scenes: generated pictures to learn from too.

    Returns:
        The report's fields.

    Raises:
        InputError: too little was reviewed.
        DatasetError: there is no generation.
        WeightsError: the segmenter's weights are missing or damaged.
        StorageError: the dataset cannot be read.
    """
    from maskmill.workers.train.verifier import train_verifier as train

    store = open_store(dataset)
    generation = find_generation(store)
    settings = models.in_force(store, config.segmenter)
    watcher().step("reading what people made", "image")
    report = train(store, generation, settings, config.masks, out, scenes=scenes, progress=watcher().count)
    return dataclasses.asdict(report)
