"""AP and AR against COCO's rule written out."""

from __future__ import annotations

import numpy as np
import pytest

from maskmill.pipeline.evaluate.coco import MaskLedger
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import encode_mask
from tests.pipeline.evaluate.blocks import Bools, blocks, plain_iou


def plain_recall(truths: Bools, answers: Bools, scores: list[float], most: int) -> float:
    """COCO's AR of one picture, written out: greedy matching, best score first, averaged over thresholds."""
    order = sorted(range(len(answers)), key=lambda i: -scores[i])[:most]
    found = []
    for threshold in np.linspace(0.5, 0.95, 10):
        free = set(range(len(truths)))
        for i in order:
            hits = [(plain_iou(answers[i], truths[t]), t) for t in free]
            best = max(hits, default=(0.0, -1))
            if best[0] >= threshold:
                free.discard(best[1])
        found.append(1 - len(free) / len(truths))
    return float(np.mean(found))


@pytest.mark.parametrize("seed", range(4))
def test_recall_is_coco_s(seed: int) -> None:
    truths = blocks(seed, 6)
    noise = np.random.default_rng(seed)
    answers = np.concatenate([np.roll(truths, 1, axis=2), blocks(seed + 50, 9)])
    scores = noise.random(len(answers)).tolist()
    ledger = MaskLedger()
    ledger.add(Truth("a", np.zeros((64, 64, 3), np.uint8), truths), [encode_mask(m) for m in answers], scores)
    got = ledger.average_recall((1, 10, 100))
    for most in (1, 10, 100):
        assert got[f"ar_{most}"] == pytest.approx(plain_recall(truths, answers, scores, most), abs=1e-9)


def test_recall_by_frequency_leaves_other_kinds_out() -> None:
    truths = blocks(3, 4)
    ledger = MaskLedger()
    picture = Truth("a", np.zeros((64, 64, 3), np.uint8), truths, (1, 1, 2, 2), None, ("f", "f", "r", "r"))
    ledger.add(picture, [encode_mask(truths[0]), encode_mask(truths[1])], [0.9, 0.8])
    got = ledger.average_recall((10,))
    assert (got["ar_10"], got["ar_10_frequent"], got["ar_10_rare"]) == (0.5, 1.0, 0.0)


def test_precision_of_perfect_and_of_no_answers() -> None:
    truths = blocks(1, 3)
    picture = Truth("a", np.zeros((64, 64, 3), np.uint8), truths, (1, 2, 1))
    perfect, silent = MaskLedger(), MaskLedger()
    perfect.add(picture, [encode_mask(m) for m in truths], [0.9, 0.8, 0.7], [1, 2, 1])
    silent.add(picture, [], [], [])
    assert perfect.average_precision()["ap"] == pytest.approx(1.0)
    assert silent.average_precision()["ap"] == 0.0
