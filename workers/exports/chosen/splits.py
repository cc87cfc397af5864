"""Splits by a stable hash: an image is of the same split in every generation and every format.

How it works: the sha256 of a key is a number between 0 and 1; the validation images are those below its
share, the test images follow, the rest is for training. So a larger share keeps the images that the smaller
had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

TRAIN, VAL, TEST = "train", "val", "test"
NAMES = {1: (TRAIN,), 2: (TRAIN, VAL), 3: (TRAIN, VAL, TEST)}

Shares = Mapping[str, float]
"""A split's share of the images, by its name, in the order they are written; the shares are 1 together."""


def parse(text: str) -> Shares:
    """ "90/5/5" -> train 0.9, val 0.05, test 0.05; two numbers have no test, "" is no split at all.

    Raises:
        ValueError: no numbers, more than three, or not 100 together.
    """
    if not text:
        return MappingProxyType({})
    try:
        percents = [float(part) for part in text.split("/")]
    except ValueError:
        percents = []
    if len(percents) not in (2, 3) or min(percents) < 0 or abs(sum(percents) - 100) > 1e-6:
        raise ValueError(
            f"split={text!r}: give percents of train, val and test that are 100 together, such as 90/5/5 or "
            "95/5"
        )
    return MappingProxyType(dict(zip(NAMES[len(percents)], (one / 100 for one in percents), strict=True)))


def split_of(key: str, shares: Shares) -> str:
    """The split of an image; "" where nothing is split."""
    if not shares:
        return ""
    draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
    low = 0.0
    for name in (VAL, TEST):
        low += shares.get(name, 0.0)
        if draw < low:
            return name
    return TRAIN
