"""True masks of the dataset's own pictures: a set of annotations, matched to the dataset by the one rule.

Audits, reviews and text-to-mask hold a generation's masks against it; what it matched goes into their
reports. It is matched against all planned pictures, not only a generation's: another picture of the same name
is a doubt also where it isn't annotated yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskmill.storage.errors import InputError
from maskmill.storage.plan.plan import load_plans
from maskmill.workers.foreign.annotations import Id
from maskmill.workers.foreign.matching import Matching
from maskmill.workers.foreign.pictures import pictures_of
from maskmill.workers.foreign.truth import TruthIndex, TruthSet, index_truth, truth_of

if TYPE_CHECKING:
    from maskmill.pipeline.evaluate.truth import Truth
    from maskmill.storage.stores.base import ObjectStore


@dataclass(frozen=True, eq=False)
class KnownTruth:
    """A set of annotations and whose they are.

    Attributes:
        index: of the set.
        matching: of its images, in the index's order, with the dataset's pictures.
    """

    index: TruthIndex
    matching: Matching

    def image_of(self, key: str) -> Id | None:
        """The set's image that is a picture of the dataset; None where none is, or nobody can say which."""
        return self.index.id_of(self.matching, key)

    def truth_of(self, image_id: Id, *, height: int, width: int) -> Truth:
        """The true masks of an image at a picture's size in px; the picture itself is left black."""
        return truth_of(self.index, image_id, np.zeros((height, width, 3), np.uint8))

    def explain(self) -> str:
        """A sentence on what was matched."""
        return self.matching.explain([image.named for image in self.index.images.values()])

    def facts(self) -> dict[str, Any]:
        """What was matched and, so far, left out; names as in the reports."""
        return {
            "matched": len(self.matching.entry_of),
            "ambiguous": len(self.matching.ambiguous_entries),
            "not_in_dataset": len(self.matching.unmatched),
            "left_out": dict(self.index.left_out.left_out().counts),
        }


def known_truth(store: ObjectStore, truth: TruthSet) -> KnownTruth:
    """Reads a set of annotations and matches it to a dataset.

    Args:
        store: the dataset.
        truth: the set.

    Raises:
        InputError: a file that cannot be used, or none of whose images is in the dataset.
        DamagedObject: the plan cannot be read.
    """
    index = index_truth(truth)
    found = KnownTruth(index, index.match(pictures_of(load_plans(store))))
    if not found.matching.entry_of:
        raise InputError(
            f"{truth.coco}: {found.explain()}. File names must be those of the sources of {store.root}, with "
            "as many folders as tell them apart"
        )
    return found
