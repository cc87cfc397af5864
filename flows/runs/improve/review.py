"""The run `review`: what people saved, masks they give as a file, or an oracle's, into the next generation.

Saves are made without a lock, by whoever reviews (workers/reviews/). The `review` column is made from them
when a generation is published: here, and by every other run that publishes. The writer's lock is held
throughout.
"""

from __future__ import annotations

import dataclasses
import getpass
from pathlib import Path
from typing import Any

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.holding import writing
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.picture_sets import load_set
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.stores.open import open_store
from maskmill.workers.run import dataset_models as models


def review(
    dataset: str,
    truth: tuple[Path, Path] | None,
    config: RunConfig,
    *,
    who: str | None = None,
    only: str = "",
) -> dict[str, Any]:
    """Reviews images of the latest generation, by [loop], and publishes the next one with all reviews.

    Args:
        dataset: its root.
        truth: annotations and pictures: what the oracle knows, or a person's own masks; None takes what was
            saved meanwhile, and nothing more.
        config: [segmenter], which answers the oracle's clicks, and [loop].
        who: gave the masks; None is the name of this account.
        only: the name of a set of pictures, of which images are drawn; "" is all.

    Returns:
        The report's fields.

    Raises:
        WriterBusy: another writer works on the dataset.
        InputError: fewer images with truth than are to be reviewed, or nobody reviewed anything.
        DatasetError: there is no generation yet.
    """
    with writing(dataset, "review"):
        return (
            take_saves(dataset) if truth is None else take_reviews(dataset, truth, config, who=who, only=only)
        )


def take_saves(dataset: str, *, least: int = 1) -> dict[str, Any]:
    """Publishes what people saved, for who holds the lock.

    Args:
        dataset: its root.
        least: pictures that must have a review.

    Raises:
        InputError: fewer have one.
        DatasetError: there is no generation yet.
    """
    from maskmill.workers.jobs.review import summary
    from maskmill.workers.reviews.column import publish_saves

    store = open_store(dataset)
    watcher().step("taking what people saved")
    before = find_generation(store)
    generation = publish_saves(store, created_utc=now_utc())
    if generation is None:
        raise DatasetError(f"{dataset}: there is no generation yet to review")
    report = summary(store, generation)
    if report.images < least:
        raise InputError(
            f"{dataset}: {report.images} pictures were reviewed, and {least} are asked for; review more "
            f"(`maskmill browse {dataset}`), give masks that people made (`maskmill import ... --by person`, "
            "`maskmill review ... --truth COCO IMAGES`), or lower loop.reviewed"
        )
    was_new = generation.number != before.number
    return {**dataclasses.asdict(report), "published": was_new}


def take_reviews(
    dataset: str, truth: tuple[Path, Path], config: RunConfig, *, who: str | None = None, only: str = ""
) -> dict[str, Any]:
    """As `review` with truth, for who holds the lock: a round of the loop.

    Raises:
        InputError: fewer images with truth than are to be reviewed.
        NoSuchThing: there is no such set of pictures.
    """
    from maskmill.workers.foreign.truth import TruthSet
    from maskmill.workers.jobs.review import review_by_oracle
    from maskmill.workers.reading.kept_embeddings import KeptEmbeddings
    from maskmill.workers.reviews.rows import ORACLE
    from maskmill.workers.run.columns import segmenter_name

    store = open_store(dataset)
    settings = models.in_force(store, config.segmenter)
    given = config.loop.review_mode == "given"

    watcher().step("reviewing", "image")
    generation = find_generation(store)
    report = review_by_oracle(
        store,
        generation,
        TruthSet(truth[0].stem, *truth),
        None if given else models.load(settings),
        config.loop,
        who=(who or this_person()) if given else ORACLE,
        note="" if given else f"clicks answered by {segmenter_name(settings)}",
        embeddings=None if given else KeptEmbeddings(store, generation, settings),
        only=load_set(store, only).keys if only else None,
        created_utc=now_utc(),
        progress=watcher().count,
    )
    return dataclasses.asdict(report)


def this_person() -> str:
    """Who runs this, by the name of the account; "person" where the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "person"
