"""What an evaluation asks, and when a candidate passes the gate."""

from __future__ import annotations

from dataclasses import dataclass

from maskmill.pipeline.checks import check_int, check_range, check_within

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
        for name in ("grid", "edge_grid"):
            check_int(name, getattr(self, name), 1, 256)
        check_range("box_nms", self.box_nms, 0.0, 1.0)
        check_int("failures", self.failures, 0, 100)
        if self.max_images is not None:
            check_int("max_images", self.max_images, 1, 10**9)
        check_int("seed", self.seed, 0, 2**62)

    @property
    def measured(self) -> tuple[str, ...]:
        """The measures as words."""
        return tuple(word.strip() for word in self.measures.split(",") if word.strip())

    @property
    def counts(self) -> tuple[int, ...]:
        """The clicks as numbers.

        Raises:
            ValueError: `clicks` is no list of whole numbers.
        """
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
        check_range("margin", self.margin, 0.0, 1.0)
        check_range("tolerance", self.tolerance, 0.0, 1.0)
        check_within("confidence", self.confidence, 0.0, 1.0)
        check_int("bootstrap", self.bootstrap, 100, 100_000)
        check_int("least_pictures", self.least_pictures, 1, 10**9)
        check_int("seed", self.seed, 0, 2**62)
