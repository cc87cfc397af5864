"""Simulated clicks against segmenters that are right, wrong or in between on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from maskmill.pipeline.evaluate.clicks import answer_clicks, error_click
from maskmill.pipeline.segmenters.base import ImageEmbedding, Prompts

SIZE = 32


class Brush:
    """Paints a disc round every foreground click of a prompt; the last painting (the mask prompt) is kept."""

    image_size = SIZE
    mask_threshold = 0.0
    images_per_batch = 1
    radius = 4.0

    def __init__(self) -> None:
        self.embedding = ImageEmbedding(torch.zeros(1), SIZE, SIZE, SIZE, SIZE)
        self.asked: list[Prompts] = []

    def embed(self, images: Sequence[object]) -> list[ImageEmbedding]:
        return [self.embedding for _ in images]

    def prompt(self, embedding: ImageEmbedding) -> Brush:
        return self

    def predict(self, prompts: Prompts, *, multimask: bool = True) -> Painted:
        self.asked.append(prompts)
        return Painted(self, prompts, 3 if multimask else 1)


class Painted:
    """Output 0 has the right radius but the lowest predicted IoU when there are three."""

    def __init__(self, brush: Brush, prompts: Prompts, outputs: int) -> None:
        self._brush, self._prompts, self._outputs = brush, prompts, outputs
        self.predicted_iou_PM = torch.tensor([[0.1, 0.9, 0.5]] * len(prompts))[:, :outputs]

    def masks(self, keep_PM: torch.Tensor) -> torch.Tensor:
        assert self._prompts.points_PK2 is not None and self._prompts.labels_PK is not None
        y, x = np.mgrid[:SIZE, :SIZE]
        drawn = []
        for p in range(len(self._prompts)):
            for m in keep_PM[p].nonzero().flatten().tolist():
                canvas = np.full((SIZE, SIZE), -1.0)
                if self._prompts.masks_P1HW is not None:
                    canvas = self._prompts.masks_P1HW[p, 0].numpy().astype(np.float64)
                for (px, py), label in zip(
                    self._prompts.points_PK2[p], self._prompts.labels_PK[p], strict=True
                ):
                    near = (x - px) ** 2 + (y - py) ** 2 <= (self._brush.radius - m) ** 2
                    canvas = np.where(near & (label >= 0), 1.0 if label else -1.0, canvas)
                drawn.append(canvas)
        return torch.tensor(np.stack(drawn), dtype=torch.float32)


def disc(x: int, y: int, radius: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    rows, cols = np.mgrid[:SIZE, :SIZE]
    found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (cols - x) ** 2 + (rows - y) ** 2 <= radius**2
    return found


def test_one_click_tells_what_it_can_from_what_it_knows() -> None:
    masks = np.stack([disc(16, 16, 4.0)])
    got = answer_clicks(Brush(), np.zeros((SIZE, SIZE, 3), np.uint8), masks, clicks=(1,))
    assert got.best_RN[0, 0] == 1.0
    assert got.chosen_RN[0, 0] < 0.7 and got.predicted_RN[0, 0] == pytest.approx(0.9)


def test_each_click_goes_where_the_answer_is_most_wrong() -> None:
    truth = disc(10, 10, 4.0) | disc(22, 22, 4.0)
    brush = Brush()
    got = answer_clicks(brush, np.zeros((SIZE, SIZE, 3), np.uint8), truth[None], clicks=(1, 2, 3))
    assert got.chosen_RN[2, 0] >= got.chosen_RN[1, 0] > got.chosen_RN[0, 0]
    last = brush.asked[-1]
    assert last.points_PK2 is not None and last.masks_P1HW is not None
    assert {tuple(point) for point in last.points_PK2[0][:2]} == {(10.0, 10.0), (22.0, 22.0)}


def test_random_first_clicks_are_the_seeds() -> None:
    truth, image = disc(16, 16, 9.0)[None], np.zeros((SIZE, SIZE, 3), np.uint8)
    runs = [answer_clicks(Brush(), image, truth, clicks=(1,), first="random", seed=s) for s in (1, 1, 2)]
    assert runs[0].best_RN[0, 0] == runs[1].best_RN[0, 0] != runs[2].best_RN[0, 0]


def test_an_answer_without_error_gets_no_click() -> None:
    truth = disc(16, 16, 4.0)
    assert error_click(truth, truth) is None
    assert error_click(np.zeros_like(truth), truth) == (16, 16, 1)
    x, y, label = error_click(disc(16, 16, 9.0), truth) or (0, 0, 1)
    assert label == 0 and not truth[y, x]


@pytest.mark.parametrize(
    ("clicks", "first"), [((), "centre"), ((2, 1), "centre"), ((0,), "centre"), ((1,), "x")]
)
def test_wrong_questions_are_refused(clicks: tuple[int, ...], first: str) -> None:
    with pytest.raises(ValueError, match=r"clicks=|first="):
        answer_clicks(
            Brush(), np.zeros((SIZE, SIZE, 3), np.uint8), disc(9, 9, 3.0)[None], clicks=clicks, first=first
        )
