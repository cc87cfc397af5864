"""How well a score orders: area under the ROC curve, precision among those accepted, rank correlation.

Shape suffixes: N things.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from maskmill.pipeline.verify.coverage import Floats32

Bools = npt.NDArray[np.bool_]


def auc(score_N: Floats32, is_right_N: Bools) -> float:
    """Chance that a right one scores above a wrong one, ties half; nan where one kind is missing."""
    right = int(is_right_N.sum())
    wrong = len(is_right_N) - right
    if not right or not wrong:
        return float("nan")
    ranks = rankdata(score_N)
    return float((ranks[is_right_N].sum() - right * (right + 1) / 2) / (right * wrong))


def accepted_precision(score_N: Floats32, is_right_N: Bools, share: float) -> float:
    """Share of right ones among the best-scored `share` of all; nan of nothing."""
    count = round(share * len(score_N))
    best = np.argsort(-score_N, kind="stable")[:count]
    return float(is_right_N[best].mean()) if count else float("nan")


def rank_correlation(first_N: Floats32, second_N: Floats32) -> float:
    """Spearman's; nan where one of the two never changes."""
    first, second = rankdata(first_N), rankdata(second_N)
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
