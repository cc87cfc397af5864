"""What an evaluation asks: a frozen dataclass with checked ranges. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

MEASURES = ("points", "random_points", "boxes", "proposals", "boundary")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Settings of `evaluate`.

    Args:
        measures: words of `MEASURES`, joined by commas. "proposals" asks a dense point grid and is slow.
        clicks: counts of clicks, rising from 1, joined by commas.
        grid: points along each side for proposals, 1 to 256; SAM's is 64.
        edge_grid: likewise for edges; SAM's is 16.
        box_nms: box IoU above which the worse of two proposals is dropped, 0 to 1; SAM's is 0.9.
        max_images: images of each set, drawn by the seed; None is all.
        seed: draws images and random points.
        failures: pictures of the worst answers to draw, 0 to 100.

    Raises:
        ValueError: a value out of its range.
    """

    measures: str = "points,random_points,boxes,boundary"
    clicks: str | int = "1,2,3,5,9"
    grid: int = 64
    edge_grid: int = 16
    box_nms: float = 0.9
    max_images: int | None = None
    seed: int = 0
    failures: int = 12

    def __post_init__(self) -> None:
        unknown = sorted(set(self.measured) - set(MEASURES))
        if unknown or not self.measured:
            raise ValueError(f"measures={self.measures!r}: use words of {', '.join(MEASURES)}")
        if list(self.counts) != sorted(set(self.counts)) or self.counts[0] != 1 or self.counts[-1] > 50:
            raise ValueError(f"clicks={self.clicks!r} must rise from 1, to 50 at most, such as 1,2,3,5,9")
        if not 1 <= self.edge_grid <= 256:
            raise ValueError(f"edge_grid={self.edge_grid}: use 1 to 256")
        if not 1 <= self.grid <= 256 or not 0 <= self.box_nms <= 1 or not 0 <= self.failures <= 100:
            raise ValueError(
                f"grid={self.grid}, box_nms={self.box_nms}, failures={self.failures}: use 1 to 256, "
                "0 to 1 and 0 to 100"
            )
        if (self.max_images is not None and self.max_images < 1) or self.seed < 0:
            raise ValueError(f"max_images={self.max_images}, seed={self.seed}: use at least 1 and at least 0")

    @property
    def measured(self) -> tuple[str, ...]:
        """The measures as words."""
        return tuple(word.strip() for word in self.measures.split(",") if word.strip())

    @property
    def counts(self) -> tuple[int, ...]:
        """The clicks as numbers."""
        words = str(self.clicks).split(",")
        if not all(word.strip().isdigit() for word in words):
            raise ValueError(f"clicks={self.clicks!r}: write whole numbers joined by commas")
        return tuple(int(word) for word in words)


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """When a candidate replaces the promoted model.

    Args:
        figure: what is compared, by mask; a name that `evaluate` measures.
        margin: least mean gain, 0 to 1.
        tolerance: a slice may lose this much, 0 to 1.
        confidence: of the bootstrap interval, in (0, 1).
        bootstrap: samples, 100 to 100,000.
        least_pictures: a slice with fewer pictures is not judged, at least 1.
        seed: of the bootstrap.

    Raises:
        ValueError: a value out of its range.
    """

    figure: str = "points_1_chosen_miou"
    margin: float = 0.002
    tolerance: float = 0.01
    confidence: float = 0.9
    bootstrap: int = 2000
    least_pictures: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.margin <= 1 and 0 <= self.tolerance <= 1 and 0 < self.confidence < 1):
            raise ValueError(
                f"margin={self.margin}, tolerance={self.tolerance}, confidence={self.confidence}: "
                "use 0 to 1, 0 to 1, and between 0 and 1"
            )
        if not 100 <= self.bootstrap <= 100_000 or self.least_pictures < 1 or self.seed < 0:
            raise ValueError(
                f"bootstrap={self.bootstrap}, least_pictures={self.least_pictures}, seed={self.seed}: "
                "use 100 to 100000, at least 1, at least 0"
            )
