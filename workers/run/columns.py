"""What a column is: its name, its settings, what its fingerprint is made of, its stage, how it joins.

    images -> candidates (where they are kept) -> masks -> captions -> labels -> names

A column is made from `images` and from the columns it names in `reads`; a fingerprint covers those of all
that it reads, so a change goes on to what was derived and to nothing else. Each column is a file in
workers/stages/ that makes one `Column`; workers/stages/registry.py lists them. Drivers read all of this: no
torch, no numpy.

What it doesn't know: which columns there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.weights.weights import pinned
from maskmill.storage.dataset.records import fingerprint

if TYPE_CHECKING:
    from maskmill.pipeline.settings import SegmenterSettings
    from maskmill.workers.stages.base import Bench, Stage

IMAGES = "images"
MASKS = "masks"

SettingsT = TypeVar("SettingsT")
Record = dict[str, Any]


@dataclass(frozen=True)
class Sections(Mapping[str, Any]):
    """Settings of a run, by the name of their section; each section has a dataclass of its own.

    `sections["captions"]` is a section by name, `sections.of(CaptionSettings)` by its kind; a kind that is
    not there is as that dataclass has it by default.
    """

    by_name: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def of(self, kind: type[SettingsT]) -> SettingsT:
        """The section of this kind."""
        found = (settings for settings in self.by_name.values() if type(settings) is kind)
        return next(found, None) or kind()

    def having(self, settings: object) -> Sections:
        """These, with the section of the same kind replaced; as they are where none is."""
        return Sections(
            {name: settings if type(old) is type(settings) else old for name, old in self.by_name.items()}
        )


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """What decides a column's content.

    Attributes:
        settings: those that change it; JSON values.
        revision: of its stage's code.
        reads: columns it is made from, beside `images`.
        models: sha256 of each model's weights, by role.
    """

    settings: Mapping[str, object]
    revision: int
    reads: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Join:
    """How a column's record is put into the masks' record, for readers and exports.

    Attributes:
        put: called with the record's `image`, its annotations by id, and the column's record. It raises
            KeyError or TypeError for a record that doesn't fit.
        image_fields, mask_fields: what `put` adds to the image, and to an annotation.
        brings: the column's own masks, which follow the grid's; such columns are joined first.
        word: the field of an annotation that holds words for it, best first, and the word's own field.
    """

    put: Callable[[Record, Mapping[int, Record], Mapping[str, Any]], None]
    image_fields: tuple[str, ...] = ()
    mask_fields: tuple[str, ...] = ()
    brings: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]] | None = None
    word: tuple[str, str] | None = None


def _keeps(settings: Sections) -> Mapping[str, Any]:
    return {}


def _accepts(settings: Sections) -> None:
    return None


def _never(settings: Sections) -> bool:
    return False


def _no_facts(settings: Sections) -> ColumnFacts:
    raise AssertionError("no run makes this column")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column, as drivers, workers and readers know it.

    Attributes:
        name: of its folder, and of its part of a generation.
        sections: its settings' kinds, by section.
        is_made: whether a run of these settings makes it; by default none does: people, or a job, do.
        resolved: its sections as a worker elsewhere can use them (models pinned, vocabularies read), less
            those that have no say. Raises WeightsError, ValueError.
        check: refuses settings that don't go together, before anything is read. Raises ValueError.
        facts: what its fingerprint is made of, from resolved sections. Raises WeightsError, ValueError,
            maskmill.storage.errors.InputError.
        stage: makes the stage of a worker; None for `images`, which a turn at a shard takes in, and for what
            no run makes. Raises WeightsError.
        join: how readers see it with the masks; None leaves it out.
        stands_in: its record of an image, where it isn't null, stands in place of the masks'.
    """

    name: str
    sections: Mapping[str, type] = field(default_factory=dict)
    is_made: Callable[[Sections], bool] = _never
    resolved: Callable[[Sections], Mapping[str, Any]] = _keeps
    check: Callable[[Sections], None] = _accepts
    facts: Callable[[Sections], ColumnFacts] = _no_facts
    stage: Callable[[Bench], Stage] | None = None
    join: Join | None = None
    stands_in: bool = False


def fingerprints(facts: Mapping[str, ColumnFacts]) -> dict[str, str]:
    """The fingerprint of each column.

    Args:
        facts: by column; those that a column reads come before it.
    """
    digits: dict[str, str] = {}
    for column, fact in facts.items():
        reads = () if column == IMAGES else (IMAGES, *fact.reads)
        digits[column] = fingerprint(
            fact.settings,
            weights=weights_digits(fact.models),
            revision=fact.revision,
            inputs={name: digits[name] for name in reads},
        )
    return digits


def weights_digits(models: Mapping[str, str]) -> str | None:
    """One model's sha256 as it is; of several, each with its role."""
    if len(models) == 1:
        return next(iter(models.values()))
    return ",".join(f"{role}:{sha256}" for role, sha256 in sorted(models.items())) or None


def named_models(sources: Mapping[str, str | None], facts: ColumnFacts) -> dict[str, str]:
    """What records say of each model: its source and sha256, by role."""
    return {role: f"{sources[role]} sha256:{sha256}" for role, sha256 in facts.models.items()}


def segmenter_name(segmenter: SegmenterSettings) -> str:
    """A segmenter as records name it: model and sha256 of its weights.

    Raises:
        WeightsError: the weights are missing or damaged.
    """
    return f"{segmenter.model} sha256:{weights_identity(segmenter)}"


def with_pinned(settings: SettingsT, *fields: str) -> SettingsT:
    """Settings whose named fields, models by path or hub id, stand for the same weights from now on.

    A hub id gets its commit of now, so that every worker loads the same. Raises WeightsError.
    """
    named = {name: value for name in fields if (value := getattr(settings, name)) is not None}
    changed = {name: new for name, value in named.items() if (new := pinned(value)) != value}
    whole: Any = settings
    result: SettingsT = dataclasses.replace(whole, **changed) if changed else settings
    return result
