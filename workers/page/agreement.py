"""How far two people agree: pictures that both finished, neither having seen what the other made.

Masks of the two are paired one to one for the largest sum of IoU; a pair of less than half is none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from scipy.optimize import linear_sum_assignment

from maskmill.pipeline.evaluate.agreement import iou_matrix
from maskmill.pipeline.rle import Rle
from maskmill.storage.dataset.saves import Save

MATCHED_IOU = 0.5


@dataclass(frozen=True)
class Agreement:
    """Two people's.

    Attributes:
        people: their names.
        pictures: that both finished.
        matched: share of all their masks that have a partner, 0 to 1.
        mean_iou: of the pairs; None without any.
    """

    people: tuple[str, str]
    pictures: int
    matched: float
    mean_iou: float | None


def agreements(pictures: Iterable[Sequence[Save]]) -> list[Agreement]:
    """Every two people's agreement.

    Args:
        pictures: the last save of each sitting, a picture at a time.
    """
    ious: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    masks: defaultdict[tuple[str, str], int] = defaultdict(int)
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    for saves in pictures:
        last = {save.who: save for save in saves if save.finished}
        for one, other in combinations(sorted(last), 2):
            first, second = last[one], last[other]
            if first.number in second.earlier or second.number in first.earlier:
                continue  # whoever saw the other's masks agrees with them
            counts[one, other] += 1
            masks[one, other] += len(first.annotations) + len(second.annotations)
            ious[one, other] += _paired(first.annotations, second.annotations)
    return [
        Agreement(
            pair,
            count,
            2 * len(ious[pair]) / masks[pair] if masks[pair] else 1.0,
            sum(ious[pair]) / len(ious[pair]) if ious[pair] else None,
        )
        for pair, count in sorted(counts.items())
    ]


def _paired(first: Sequence[Any], second: Sequence[Any]) -> list[float]:
    """The IoU of each pair of two people's masks of a picture."""
    outlines = [[Rle.from_coco(row["segmentation"]) for row in rows] for rows in (first, second)]
    iou_NM = iou_matrix(*outlines)
    rows, cols = linear_sum_assignment(iou_NM, maximize=True)
    return [float(iou) for iou in iou_NM[rows, cols] if iou >= MATCHED_IOU]
