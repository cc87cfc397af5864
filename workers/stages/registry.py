"""The columns there are. To add one: a file in this folder that makes a `Column`, and its line here.

Where a column has settings, its section is a field of `RunConfig` too (flows/config.py). All else follows
from the `Column`: fingerprints, workers, commits, index, joining, exports, relabel, publishing.

Columns that were imported are not listed: their name is the user's, and a generation's rows say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskmill.workers.run.columns import Column, ColumnFacts, Sections
from maskmill.workers.stages import candidates, captions, embeddings, images, labels, names, review
from maskmill.workers.stages.masks import column as masks
from maskmill.workers.stages.verdicts import column as verdicts

COLUMNS: tuple[Column, ...] = (
    images.COLUMN,
    embeddings.COLUMN,
    candidates.COLUMN,
    masks.COLUMN,
    verdicts.COLUMN,
    captions.COLUMN,
    labels.COLUMN,
    names.COLUMN,
    review.COLUMN,
)
"""In the order they are made."""


def column_names() -> tuple[str, ...]:
    """The names that are taken."""
    return tuple(column.name for column in COLUMNS)


def joined_columns() -> tuple[Column, ...]:
    """Those that readers see with the masks, in the order they are joined: those that bring masks first."""
    found = [column for column in COLUMNS if column.join is not None]
    return tuple(sorted(found, key=lambda column: column.join is None or column.join.brings is None))


def standing_in() -> tuple[str, ...]:
    """Columns whose record of an image stands in place of the masks', the first that has one."""
    return tuple(column.name for column in COLUMNS if column.stands_in)


def section_kinds() -> dict[str, type]:
    """The kind of settings of every section that a column has."""
    return {name: kind for column in COLUMNS for name, kind in column.sections.items()}


def sections_of(settings: Mapping[str, Any]) -> Sections:
    """A run's sections, checked together; the columns whose section is left out are off.

    Args:
        settings: by section; None leaves one out.

    Raises:
        ValueError: a section of no column, settings of another kind, or settings that don't go together.
    """
    kinds = section_kinds()
    found = {name: value for name, value in settings.items() if value is not None}
    for name, value in found.items():
        if name not in kinds:
            raise ValueError(f"there is no section {name!r}: use {', '.join(kinds)}")
        if type(value) is not kinds[name]:
            raise ValueError(f"section {name!r} is {type(value).__name__}: use {kinds[name].__name__}")

    sections = Sections(found)
    for column in COLUMNS:
        if column.is_made(sections):
            column.check(sections)
    return sections


def resolved(sections: Sections) -> Sections:
    """The sections that have a say in a run, as a worker elsewhere can use them.

    Raises:
        WeightsError: a model's weights are missing.
        ValueError: a vocabulary has no phrases.
    """
    made = [column for column in COLUMNS if column.is_made(sections)]
    return Sections({name: value for column in made for name, value in column.resolved(sections).items()})


def facts_of(sections: Sections) -> dict[str, ColumnFacts]:
    """What the fingerprint of each column of a run is made of, in the order they are made.

    Args:
        sections: resolved.

    Raises:
        WeightsError: a model's weights are missing or damaged.
        maskmill.storage.errors.InputError: the file of given boxes is missing.
        ValueError: a vocabulary has no phrases.
    """
    return {column.name: column.facts(sections) for column in COLUMNS if column.is_made(sections)}
