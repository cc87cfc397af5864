"""The dataset's side of matching: its pictures by where they came from, and what to say where none fits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from maskmill.workers.foreign.matching import Matching, Picture
from maskmill.workers.foreign.origin import origins_of

if TYPE_CHECKING:
    from maskmill.storage.plan.plan import Plan
    from maskmill.workers.foreign.annotations import ForeignSet


def pictures_of(plan: Plan) -> Iterator[Picture]:
    """Every picture that is planned and not forgotten. Raises maskmill.storage.errors.DamagedObject."""
    told = origins_of(plan)
    for key, source in plan.iter_sources():
        yield Picture(key, source, told(source))


def nothing_matched(given: ForeignSet, matching: Matching, plan: Plan) -> str:
    """Why a file is of no use for a dataset, with examples of both sides' names, in one sentence."""
    examples = ", ".join(picture.source for picture in islice(pictures_of(plan), 2))
    return (
        f"{matching.explain(given.names)}. The dataset's pictures are {examples}, ...: file names must be "
        "theirs, with as many folders as tell them apart"
    )
