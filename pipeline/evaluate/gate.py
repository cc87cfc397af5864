"""Is a candidate better? Two models' figures on the same masks, compared picture by picture.

The candidate passes when the mean gain is at least the margin, when the lower end of the gain's bootstrap
interval is above zero, and when no named slice is worse by more than the tolerance with any confidence: the
interval of a slice's gain lies below minus the tolerance. Pictures are drawn with replacement, not masks:
masks of one picture stand and fall together.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).

Shapes: N masks, P pictures, B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from maskmill.pipeline.evaluate.suite import MaskRow
from maskmill.pipeline.settings.evaluate import GateSettings


@dataclass(frozen=True)
class Gain:
    """A candidate's gain over the model in force on some masks.

    Attributes:
        masks, pictures: compared.
        before, after: mean figure of the model in force and of the candidate.
        low, high: bootstrap interval of the gain, after - before.
    """

    masks: int
    pictures: int
    before: float
    after: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """after - before."""
        return self.after - self.before


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Attributes:
        passed: the candidate may be promoted.
        why: one sentence.
        figure: the name of what was compared.
        overall: on all masks.
        slices: by name.
    """

    passed: bool
    why: str
    figure: str
    overall: Gain
    slices: Mapping[str, Gain]

    def facts(self) -> dict[str, object]:
        """For a card."""
        return {
            "passed": self.passed,
            "why": self.why,
            "figure": self.figure,
            "overall": {**asdict(self.overall), "gain": self.overall.gain},
            "slices": {name: {**asdict(one), "gain": one.gain} for name, one in self.slices.items()},
        }


SLICES: Mapping[str, Callable[[MaskRow], bool]] = {
    "small": lambda row: row.size == "small",
    "medium": lambda row: row.size == "medium",
    "large": lambda row: row.size == "large",
}
"""Slices by COCO's sizes; `decide` adds one a set where there are several."""


def decide(
    before: Mapping[str, Sequence[MaskRow]], after: Mapping[str, Sequence[MaskRow]], settings: GateSettings
) -> Decision:
    """Compares two models' rows of the same sets.

    Args:
        before: the model in force: set name -> rows.
        after: the candidate, the same masks in the same order.
        settings: margin, tolerance, interval.

    Raises:
        ValueError: rows of other masks, none, or without the figure.
    """
    pairs = [
        (name, old, new)
        for name in before
        for old, new in zip(before[name], after.get(name, ()), strict=True)
    ]
    if not pairs or any((old.picture, old.place) != (new.picture, new.place) for _, old, new in pairs):
        raise ValueError("a gate compares two models on the same masks, at least one: measure both again")
    named: dict[str, list[tuple[str, MaskRow, MaskRow]]] = {}
    if len(before) > 1:
        named |= {f"set {name}": [pair for pair in pairs if pair[0] == name] for name in before}
    named |= {name: [pair for pair in pairs if keep(pair[1])] for name, keep in SLICES.items()}
    overall = _gain(pairs, settings)
    slices = {
        name: _gain(some, settings)
        for name, some in named.items()
        if len({(p[0], p[1].picture) for p in some}) >= settings.least_pictures
    }
    return _decision(overall, slices, settings)


def _decision(overall: Gain, slices: Mapping[str, Gain], settings: GateSettings) -> Decision:
    worse = [name for name, one in slices.items() if one.high < -settings.tolerance]
    told = f"{overall.gain:+.4f} [{overall.low:+.4f}, {overall.high:+.4f}] in {settings.figure}"
    if overall.gain < settings.margin:
        why = f"refused: {told} is below the margin of {settings.margin:g}"
    elif overall.low <= 0:
        why = f"refused: {told} may be no gain at all"
    elif worse:
        why = f"refused: {told}, but worse on {', '.join(worse)}"
    else:
        why = f"accepted: {told}, worse on no slice"
    return Decision(why.startswith("accepted"), why, settings.figure, overall, dict(slices))


def _gain(pairs: Sequence[tuple[str, MaskRow, MaskRow]], settings: GateSettings) -> Gain:
    try:
        old = np.array([pair[1].figures[settings.figure] for pair in pairs])
        new = np.array([pair[2].figures[settings.figure] for pair in pairs])
    except KeyError as exc:
        raise ValueError(f"gate figure {exc} was not measured: use one of the evaluation's") from exc
    pictures = sorted({(pair[0], pair[1].picture) for pair in pairs})
    place = {picture: i for i, picture in enumerate(pictures)}
    owner_N = np.array([place[(pair[0], pair[1].picture)] for pair in pairs], dtype=np.int64)
    sums_P = np.bincount(owner_N, new - old, minlength=len(pictures))
    counts_P = np.bincount(owner_N, minlength=len(pictures))
    rng = np.random.default_rng(settings.seed)
    drawn_BP = rng.integers(len(pictures), size=(settings.bootstrap, len(pictures)))
    gains_B = sums_P[drawn_BP].sum(1) / counts_P[drawn_BP].sum(1)
    tail = 50 * (1 - settings.confidence)
    low, high = np.percentile(gains_B, [tail, 100 - tail])
    return Gain(len(pairs), len(pictures), float(old.mean()), float(new.mean()), float(low), float(high))
