"""Fitting a head to masks whose IoU is known.

Every network is fitted without one fold of the pictures and asked about that fold; from these answers come
the two curves, so what the curves correct was never fitted on. At random, whole groups of features are
hidden (votes, the embedding, colours), so that a head also judges masks of which less is known.

Source: Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates
(2002).

Shape suffixes: N masks, F features, E folds, U hidden units, V different answers, K knots.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.verify.features import FEATURES, GROUPS, VOTES
from maskmill.pipeline.verify.head import FARTHEST, RIGHT_IOU, Curve, Floats, Head, Networks

AnyFloats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

FOLDS = 5
HIDDEN = 12
STEPS = 150
BATCH = 256
RATE = 5e-3
DECAY = 0.3
HIDE = 0.15
"""Of each group of features, how often it is hidden."""
KNOTS = 24
LEAST_STEP = 1e-4
"""Between two knots."""
LEAST_IN_FOLD = 20


@dataclass(frozen=True, eq=False)
class Examples:
    """Masks whose truth is known.

    Attributes:
        features_NF: float32[N, F].
        iou_N: true IoU, 0 to 1.
        picture_N: int64, a number for each picture.
        weight_N: float32, how much each counts.
    """

    features_NF: Floats
    iou_N: Floats
    picture_N: npt.NDArray[np.int64]
    weight_N: Floats

    def __len__(self) -> int:
        return len(self.iou_N)

    def __getitem__(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Examples:
        return Examples(self.features_NF[keep], self.iou_N[keep], self.picture_N[keep], self.weight_N[keep])


def concatenate(some: list[Examples]) -> Examples:
    """All of them, each set's pictures apart from the others'."""
    first, pictures = 0, []
    for one in some:
        pictures.append(one.picture_N + first)
        first += int(one.picture_N.max(initial=-1)) + 1
    return Examples(
        np.concatenate([one.features_NF for one in some]),
        np.concatenate([one.iou_N for one in some]),
        np.concatenate(pictures),
        np.concatenate([one.weight_N for one in some]),
    )


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head, and what it said of pictures that the network asked had not seen.

    Attributes:
        head: the head.
        right_N, expected_iou_N: after the curves, one an example.
    """

    head: Head
    right_N: Floats
    expected_iou_N: Floats


def fit_head(examples: Examples, calibrated_for: str, *, seed: int = 0, steps: int = STEPS) -> Fitted:
    """A head for masks like these.

    Args:
        examples: of one model's masks.
        calibrated_for: sha256 of that model's weights.
        seed: of folds and networks.
        steps: of each network.

    Raises:
        ValueError: too few masks or pictures to fit and to calibrate on, or all right, or all wrong.
    """
    pictures = np.unique(examples.picture_N)
    is_right_N = examples.iou_N >= RIGHT_IOU
    if len(examples) < FOLDS * LEAST_IN_FOLD or len(pictures) < 2 * FOLDS:
        raise ValueError(
            f"{len(examples)} masks of {len(pictures)} pictures: a verifier needs {FOLDS * LEAST_IN_FOLD} "
            f"judged masks of {2 * FOLDS} pictures"
        )
    if is_right_N.all() or not is_right_N.any():
        raise ValueError(
            f"every mask given is {'right' if is_right_N.all() else 'wrong'}: nothing can be learnt"
        )

    # Folds of whole pictures, a network each
    rng = np.random.default_rng(seed)
    fold_of = dict(zip(pictures.tolist(), rng.permutation(len(pictures)) % FOLDS, strict=True))
    fold_N = np.array([fold_of[picture] for picture in examples.picture_N.tolist()])
    networks = _fit_networks(examples, fold_N, seed=seed, steps=steps)

    # What each said of what it had not seen, and the curves from that
    unseen_N2 = networks.each(examples.features_NF)[fold_N, np.arange(len(examples))]
    right, iou = _curves(unseen_N2, examples)
    alone_NF = examples.features_NF.copy()
    alone_NF[:, [FEATURES.index(name) for name in VOTES]] = 0
    alone = _curves(networks.each(alone_NF)[fold_N, np.arange(len(examples))], examples)
    head = Head(networks, right, iou, calibrated_for, *alone)
    return Fitted(head, right(unseen_N2[:, 0]), iou(unseen_N2[:, 1]))


def _curves(unseen_N2: Floats, examples: Examples) -> tuple[Curve, Curve]:
    """Of the chance to be right and of the IoU, from answers about pictures that were not seen."""
    is_right_N = (examples.iou_N >= RIGHT_IOU).astype(np.float32)
    return (
        fitted_curve(unseen_N2[:, 0], is_right_N, examples.weight_N),
        fitted_curve(unseen_N2[:, 1], examples.iou_N, examples.weight_N),
    )


def fitted_curve(
    said_N: AnyFloats, true_N: AnyFloats, weight_N: AnyFloats | None = None, knots: int = KNOTS
) -> Curve:
    """The rising step function of least squares, at knots between which equally many answers lie.

    Equal answers have one truth, their mean. The first and last knot are the least and the largest answer.

    Args:
        said_N: answers, at least one.
        true_N: what is true, 0 to 1.
        weight_N: how much each counts; None is alike.
        knots: K, at least 2.
    """
    weight_N = np.ones(len(said_N), np.float32) if weight_N is None else weight_N
    said_V, group_N = np.unique(said_N.astype(np.float64), return_inverse=True)
    weight_V = np.bincount(group_N, weights=weight_N)
    mean_V = np.bincount(group_N, weights=weight_N * true_N.astype(np.float64)) / weight_V
    fitted_V = isotonic_regression(mean_V, weights=weight_V).x

    # Knots by the count of answers; about each, the mean over those nearer to it than to another
    group_N, weight_N = np.sort(group_N), weight_N[np.argsort(group_N, kind="stable")]
    place_K = np.linspace(0, len(said_N) - 1, knots)
    said_K = np.interp(place_K, np.arange(len(said_N)), said_V[group_N])
    edges = np.concatenate([[0], (place_K[1:] + place_K[:-1]) / 2, [len(said_N)]]).round().astype(int)
    parts = [slice(a, max(b, a + 1)) for a, b in pairwise(edges)]
    true_K = np.array([np.average(fitted_V[group_N[part]], weights=weight_N[part]) for part in parts])

    # Rising by `LEAST_STEP` at least
    step_K = LEAST_STEP * np.arange(knots)
    rising_K = np.maximum.accumulate(said_K - step_K) + step_K
    return Curve(rising_K.astype(np.float32), np.clip(np.maximum.accumulate(true_K), 0, 1).astype(np.float32))


def _fit_networks(examples: Examples, fold_N: npt.NDArray[np.int64], *, seed: int, steps: int) -> Networks:
    """All folds' networks side by side; each draws batches from the others' masks."""
    mean_F = np.average(examples.features_NF, axis=0, weights=examples.weight_N)
    spread_F = np.average((examples.features_NF - mean_F) ** 2, axis=0, weights=examples.weight_N)
    deviation_F = np.sqrt(spread_F) + 1e-3
    generator = torch.Generator().manual_seed(seed)
    x_NF = torch.from_numpy(((examples.features_NF - mean_F) / deviation_F).astype(np.float32))
    x_NF = x_NF.clamp(-FARTHEST, FARTHEST)
    y_N2 = torch.from_numpy(np.stack([examples.iou_N >= RIGHT_IOU, examples.iou_N], 1).astype(np.float32))
    hidden_F = torch.from_numpy((-mean_F / deviation_F).astype(np.float32)).clamp(-FARTHEST, FARTHEST)

    # Small weights at first; weight decay on the matrices
    shape = (FOLDS, x_NF.shape[1], HIDDEN)
    w1 = (torch.randn(shape, generator=generator) / x_NF.shape[1] ** 0.5).requires_grad_()
    b1, b2 = (torch.zeros(FOLDS, width, requires_grad=True) for width in (HIDDEN, 2))
    w2 = (torch.randn((FOLDS, HIDDEN, 2), generator=generator) / HIDDEN**0.5).requires_grad_()
    groups: list[dict[str, object]] = [
        {"params": [w1, w2], "weight_decay": DECAY},
        {"params": [b1, b2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=RATE)
    chances = torch.from_numpy(np.stack([examples.weight_N * (fold_N != fold) for fold in range(FOLDS)]))

    for step in range(steps):
        rows_EB = torch.multinomial(chances, BATCH, replacement=True, generator=generator)
        x_EBF = _hidden(x_NF[rows_EB], hidden_F, generator)
        said = torch.tanh(x_EBF @ w1 + b1[:, None]) @ w2 + b2[:, None]
        loss = F.binary_cross_entropy_with_logits(said, y_N2[rows_EB])
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    arrays = (mean_F.astype(np.float32), deviation_F.astype(np.float32))
    return Networks(*arrays, *(one.detach().numpy() for one in (w1, b1, w2, b2)))


def _hidden(x_EBF: Tensor, hidden_F: Tensor, generator: torch.Generator) -> Tensor:
    """Some masks' groups of features as they are where a group is unknown."""
    for group in GROUPS:
        place = slice(FEATURES.index(group[0]), FEATURES.index(group[-1]) + 1)
        hide_EB1 = torch.rand((*x_EBF.shape[:2], 1), generator=generator) < HIDE
        x_EBF[..., place] = torch.where(hide_EB1, hidden_F[place], x_EBF[..., place])
    return x_EBF
