"""Settings of evaluation, training and the loop; light to import, so that command lines read them here."""

from __future__ import annotations

from dataclasses import dataclass

from maskmill.pipeline.evaluate.settings import EvaluateSettings, GateSettings
from maskmill.pipeline.train.settings import DistillSettings, TrainSettings

__all__ = ["DistillSettings", "EvaluateSettings", "GateSettings", "LoopSettings", "TrainSettings"]

REVIEW_MODES = ("assisted", "semi", "given")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop and its oracle work.

    Args:
        reviewed: images that the oracle annotates, drawn by the seed, at least 0.
        review_mode: "assisted": every object by clicks; "semi": confident automatic masks are kept as they
            are, only what they miss is clicked; "given": no oracle, a person's own masks as they are.
        wanted_iou: an object is done at this IoU, in (0, 1].
        most_clicks: then it is given up, 1 to 100.
        draw_rest: finish a given-up object by hand (it is stored as it is in truth, and counted); else the
            mask as far as it came is kept.
        start: each round trains from "base" (the run's own model) or from "promoted" (the one in force).
        seed: draws images.

    Raises:
        ValueError: a value out of its range.
    """

    reviewed: int = 0
    review_mode: str = "assisted"
    wanted_iou: float = 0.9
    most_clicks: int = 20
    draw_rest: bool = True
    start: str = "promoted"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.review_mode not in REVIEW_MODES or self.start not in ("base", "promoted"):
            raise ValueError(
                f"review_mode={self.review_mode!r}, start={self.start!r}: use assisted, semi or given, "
                "base or promoted"
            )
        if self.reviewed < 0 or self.seed < 0 or not 1 <= self.most_clicks <= 100:
            raise ValueError(
                f"reviewed={self.reviewed}, seed={self.seed}, most_clicks={self.most_clicks}: "
                "use at least 0, at least 0, 1 to 100"
            )
        if not 0 < self.wanted_iou <= 1:
            raise ValueError(f"wanted_iou={self.wanted_iou}: use above 0, up to 1")
