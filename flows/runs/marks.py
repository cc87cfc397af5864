"""The runs `tag` and `promote`: one small record each, which disturbs no writer.

They take no lock, so that a relabel of days keeps nobody from naming a generation or going back to a model;
a heartbeat makes them seen by `forget` and garbage collection. Records are numbered put-if-absent, and each
is made over the one that was looked at: of two at once one is written, the other is told.
"""

from __future__ import annotations

from maskmill.flows.runs.steps.holding import visiting
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset import model_versions, tags
from maskmill.storage.stores.open import open_store


def tag(dataset: str, name: str, generation: str | None, *, note: str = "") -> None:
    """Names a generation.

    Args:
        dataset: its root.
        name: the tag.
        generation: a number, another tag or "latest"; None takes the tag away.
        note: why, for people.

    Raises:
        InputError: the name cannot be a tag's.
        DatasetError, ObjectNotFound: no such generation, or no such tag to take away.
        Overtaken: another set the tag meanwhile.
    """
    number = None if generation is None else tags.find_generation(open_store(dataset), generation).number
    with visiting(dataset, "tag") as store:
        tags.set_tag(store, name, number, created_utc=now_utc(), note=note)


def promote(dataset: str, model: int, *, why: str) -> None:
    """Puts a model in force for the next generation.

    Args:
        dataset: its root.
        model: its number; 0 is the shipped one.
        why: kept with the promotion.

    Raises:
        ObjectNotFound: there is no such model.
        Overtaken: another model was put in force meanwhile.
    """
    with visiting(dataset, "promote") as store:
        model_versions.promote(store, model, why=why, created_utc=now_utc())
