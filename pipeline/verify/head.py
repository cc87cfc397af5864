"""The head that judges masks: features in, the probability that a mask is right and its expected IoU out.

A few small networks with one hidden layer, each fitted without a fifth of the pictures; their mean goes
through two rising curves, fitted by isotonic regression on the pictures that each network had not seen:

    (1)  x = clip((features - mean) / deviation)
    (2)  mean over the networks of sigmoid(W2 tanh(W1 x + b1) + b2): [right, IoU]
    (3)  each by its curve

Where no votes were kept (the engine on a GPU keeps none, nor do other people's files), the networks know
less, and (3) has curves of its own, fitted on the same pictures with the votes hidden.

Curves belong to a model: what a head says of another model's masks has its order, not its size.
`calibrated_for` holds the sha256 of the weights whose masks the curves were fitted on. Everything is one
safetensors file, read with numpy alone.

Shape suffixes: N masks, F features, E networks, U hidden units, K knots.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from maskmill.pipeline.verify.features import FEATURES, VOTES

FORMAT = "maskmill-verifier"
FORMAT_VERSION = "1"
RIGHT_IOU = 0.75
"""A mask is right from this IoU on."""
HAS_VOTES = FEATURES.index(VOTES[0])
_ALONE = "_alone"
CURVES = ("right", "iou", f"right{_ALONE}", f"iou{_ALONE}")
"""Of a head; files of before there were the last two read as heads without."""
FARTHEST = 4.0
"""Deviations from the mean beyond which a feature says no more."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Curve:
    """A rising piecewise linear map.

    Attributes:
        said_K: rising.
        true_K: not falling.
    """

    said_K: Floats
    true_K: Floats

    def __call__(self, said_N: Floats) -> Floats:
        """The curve's value at each; beyond its ends, that of the end."""
        found: Floats = np.interp(said_N, self.said_K, self.true_K).astype(np.float32)
        return found


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks' numbers.

    Attributes:
        mean_F, deviation_F: of the features they were fitted on.
        w1_EFU, b1_EU, w2_EU2, b2_E2: of each network.
    """

    mean_F: Floats
    deviation_F: Floats
    w1_EFU: Floats
    b1_EU: Floats
    w2_EU2: Floats
    b2_E2: Floats

    def each(self, features_NF: Floats) -> Floats:
        """(1) and (2) before the mean: float32[E, N, 2]."""
        x_NF = np.clip((features_NF - self.mean_F) / self.deviation_F, -FARTHEST, FARTHEST)
        hidden_ENU = np.tanh(x_NF @ self.w1_EFU + self.b1_EU[:, None])
        found: Floats = 1 / (1 + np.exp(-(hidden_ENU @ self.w2_EU2 + self.b2_E2[:, None])))
        return found


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a head says of N masks.

    Attributes:
        right_N: probability that the mask's IoU is at least `RIGHT_IOU`.
        expected_iou_N: its IoU, on average.
    """

    right_N: Floats
    expected_iou_N: Floats


@dataclass(frozen=True, eq=False)
class Head:
    """A fitted head.

    Attributes:
        networks: of it.
        right, iou: the two curves.
        right_alone, iou_alone: of masks without votes.
        calibrated_for: sha256 of the weights whose masks the curves were fitted on.
    """

    networks: Networks
    right: Curve
    iou: Curve
    calibrated_for: str
    right_alone: Curve | None = None
    iou_alone: Curve | None = None

    def __call__(self, features_NF: Floats) -> Verdicts:
        """Args: features_NF: float32[N, F], as `features.features` gives them."""
        if not len(features_NF):
            return Verdicts(np.zeros(0, np.float32), np.zeros(0, np.float32))
        said_N2 = self.networks.each(features_NF).mean(axis=0)
        right_N, iou_N = self.right(said_N2[:, 0]), self.iou(said_N2[:, 1])
        if self.right_alone is None or self.iou_alone is None:
            return Verdicts(right_N, iou_N)
        is_alone_N = features_NF[:, HAS_VOTES] == 0
        return Verdicts(
            np.where(is_alone_N, self.right_alone(said_N2[:, 0]), right_N),
            np.where(is_alone_N, self.iou_alone(said_N2[:, 1]), iou_N),
        )


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds beside the head.

    Attributes:
        head: of quality.
        extra: further arrays, by name: of exhaustivity.
        about: what was trained on, for people.
    """

    head: Head
    extra: dict[str, Floats]
    about: dict[str, Any]


def save(stored: Stored, path: Path) -> None:
    """Writes a head to one safetensors file, through a temporary name."""
    head = stored.head
    tensors = {one.name: getattr(head.networks, one.name) for one in fields(Networks)}
    for name in CURVES:
        curve = getattr(head, name)
        if curve is not None:
            tensors |= {f"{name}_said_K": curve.said_K, f"{name}_true_K": curve.true_K}
    tensors |= {f"extra.{name}": values for name, values in stored.extra.items()}
    metadata = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "features": json.dumps(FEATURES),
        "calibrated_for": head.calibrated_for,
        "about": json.dumps(stored.about, sort_keys=True),
    }
    partial = path.with_name(path.name + ".partial")
    save_file(
        {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}, partial, metadata
    )
    partial.replace(path)


def load(path: Path) -> Stored:
    """Reads what `save` wrote.

    Raises:
        ValueError: no such file, a damaged one, another format, or other features than this version's.
    """
    if not path.is_file():
        raise ValueError(f"no verifier at {path}: give a file that pipeline/verify/train.py wrote")
    try:
        with safe_open(path, framework="np") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): train or fetch it again"
        ) from error
    if metadata.get("format") != FORMAT or metadata.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} holds {metadata.get('format')!r} version {metadata.get('version')!r}, not {FORMAT!r} "
            f"version {FORMAT_VERSION}: train a verifier with this version"
        )
    if json.loads(metadata["features"]) != list(FEATURES):
        raise ValueError(f"{path} reads other features than this version has: train it again")
    try:
        networks = Networks(**{one.name: tensors[one.name] for one in fields(Networks)})
        curves = {
            name: Curve(tensors[f"{name}_said_K"], tensors[f"{name}_true_K"])
            for name in CURVES
            if f"{name}_said_K" in tensors or not name.endswith(_ALONE)
        }
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}: train or fetch it again") from error
    extra = {
        name.removeprefix("extra."): value for name, value in tensors.items() if name.startswith("extra.")
    }
    head = Head(networks, calibrated_for=metadata["calibrated_for"], **curves)
    return Stored(head, extra, json.loads(metadata["about"]))
