"""Models that a dataset holds, as segmenters: from storage to a local file and its settings.

A file is fetched once into a cache, named by its sha256, and is the same on every machine; a worker on
another node fetches its own copy (`bring`). `weights` of a segmenter may say:

    (unset)      the promoted model of the dataset, where one is in force and is of the model that is named;
                 else the model's own weights
    promoted     the promoted model; an error where none is in force
    shipped      the model's own weights, whatever is promoted
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.weights.kept import cache_home
from maskmill.storage.dataset.model_versions import SHIPPED, fetch, list_models, load_model, promoted
from maskmill.storage.errors import InputError

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.pipeline.settings import SegmenterSettings
    from maskmill.storage.dataset.model_versions import ModelCard
    from maskmill.storage.stores.base import ObjectStore

PROMOTED, SHIPPED_WORD = "promoted", "shipped"
_CACHED = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """Where fetched models lie: $MASKMILL_CACHE, or ~/.cache/maskmill."""
    return cache_home() / "models"


def in_force(store: ObjectStore, settings: SegmenterSettings) -> SegmenterSettings:
    """The settings with the promoted model in them, where it is meant; see this file's header.

    Raises:
        InputError: "promoted", and no model is in force.
        StorageError: it cannot be fetched.
    """
    if settings.weights == SHIPPED_WORD:
        return dataclasses.replace(settings, weights=None)
    if settings.weights not in (None, PROMOTED):
        return settings
    now = promoted(store)
    if now is None or now.model == SHIPPED:
        if settings.weights == PROMOTED:
            raise InputError(f"{store.root}: no model is promoted; `maskmill promote` puts one in force")
        return settings
    card = load_model(store, now.model)
    if settings.weights is None and card.model != settings.model:
        return settings
    return of_card(store, card, settings)


def of_card(store: ObjectStore, card: ModelCard, settings: SegmenterSettings) -> SegmenterSettings:
    """Settings of a model version: its architecture and a local copy of its weights."""
    path = fetch(store, card.weights, cache_folder())
    return dataclasses.replace(settings, model=card.model, weights=str(path))


def bring(store: ObjectStore, settings: SegmenterSettings) -> None:
    """Fetches the weights that settings name by their place in another machine's cache, if they lack here.

    Raises:
        StorageError: they cannot be fetched.
    """
    path = Path(settings.weights) if settings.weights else None
    if path is None or path.exists() or not _CACHED.fullmatch(path.stem):
        return
    for card in list_models(store):
        if card.weights.sha256 == path.stem:
            fetch(store, card.weights, path.parent)
            return


def load(settings: SegmenterSettings) -> Segmenter:
    """The segmenter itself; imports torch."""
    return load_segmenter(settings)
