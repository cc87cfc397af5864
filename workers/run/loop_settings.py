"""Settings of the loop; light to import, so that command lines may read them."""

from __future__ import annotations

from dataclasses import dataclass

from maskmill.pipeline.checks import check_choice, check_int, check_range

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
        check_choice("review_mode", self.review_mode, REVIEW_MODES)
        check_choice("start", self.start, ("base", "promoted"))
        check_int("reviewed", self.reviewed, 0, 10**9)
        check_int("most_clicks", self.most_clicks, 1, 100)
        check_int("seed", self.seed, 0, 2**62)
        check_range("wanted_iou", self.wanted_iou, 1e-6, 1.0)
