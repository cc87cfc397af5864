"""Judges a model of the dataset against the one in force, on pictures that are in no training set.

The decision is kept on the model's card; a promotion follows only where it is asked for and earned.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset import model_versions as kept
from maskmill.storage.dataset.generations import load_generation
from maskmill.storage.errors import InputError
from maskmill.storage.stores.open import open_store
from maskmill.workers.run import dataset_models as models

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore


def judge(
    dataset: str, number: int, config: RunConfig, coco: Path, images: Path, *, promote: bool
) -> dict[str, Any]:
    """Measures a candidate and the model in force on the gate set, and decides.

    Args:
        dataset: its root.
        number: of the candidate.
        config: [segmenter], [evaluate] and [gate].
        coco, images: the gate set.
        promote: put the candidate in force if it passes.

    Returns:
        The decision as kept on the card; `promoted` says whether it is in force now.

    Raises:
        InputError: the gate set overlaps what the candidate was trained on, or cannot be read.
        ConfigError: [gate] figure isn't measured.
        Overtaken: another model was put in force while this one was measured; the decision is kept.
    """
    from maskmill.workers.measure.gate import compare

    store = open_store(dataset)
    card = kept.load_model(store, number)
    generation = card.trained.get("generation")
    if generation is not None:
        refuse_overlap(store, load_generation(store, int(generation)), coco, images)
    before = kept.promoted(store)

    watcher().step(f"gate: model {number} against the one in force")
    decision = compare(
        models.in_force(store, config.segmenter),
        models.of_card(store, card, config.segmenter),
        coco,
        images,
        dataclasses.replace(config.evaluate, failures=0),
        config.gate,
    )

    # kept on the card before anything is promoted
    facts = {
        **decision,
        "against": before.model if before else kept.SHIPPED,
        "over": kept.number_of(before),
        "gate_set": coco.name,
        "settings": dataclasses.asdict(config.gate),
        "created_utc": now_utc(),
    }
    kept.note_decision(store, number, facts)

    in_force = False
    if promote and decision["passed"]:
        over = kept.number_of(before)
        kept.promote(store, number, why=str(decision["why"]), created_utc=now_utc(), over=over)
        in_force = True
    return {**facts, "model": number, "promoted": in_force}


def refuse_overlap(store: ObjectStore, generation: Generation, coco: Path, images: Path) -> None:
    """Sees that no picture of the gate set is in the generation, as the same bytes or as a near-duplicate.

    Raises:
        InputError: some are, or the gate set cannot be read.
    """
    from maskmill.workers.foreign.truth import picture_prints
    from maskmill.workers.reading.near_duplicates import known_pictures, overlaps

    known = known_pictures(store, generation, decode=False)
    shared = overlaps(known, picture_prints(coco, images))
    if shared:
        named = ", ".join(
            f"{one.name} is {one.key}" + (" but for its encoding or size" if one.distance is not None else "")
            for one in shared[:3]
        )
        raise InputError(
            f"the gate set {coco} overlaps the training set: {len(shared)} of its pictures are in "
            f"generation {generation.number} of {store.root} ({named}). Gate on pictures "
            "that are not in the dataset, or leave these out of it"
        )
