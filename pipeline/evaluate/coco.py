"""AP and AR as pycocotools counts them, over masks that are added picture by picture.

AP is COCO's: ten IoU thresholds from 0.5 to 0.95, by kind, averaged. AR at k is COCO's too, kinds set aside
and up to k proposals a picture, for k = 1, 10, 100, 1000; by size with COCO's bounds (32 and 96 px squared),
and by LVIS's frequency of kinds, where a mask of another frequency is left out of the count.

Source: pycocotools' `COCOeval`; Kirillov et al., Segment Anything (2023), section 7.3 and appendix D.3.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.rle import Rle, area_px, encode_mask

MAX_DETS = (1, 10, 100, 1000)
AREAS = ("all", "small", "medium", "large")
FREQUENCIES = {"f": "frequent", "c": "common", "r": "rare"}


@dataclass
class MaskLedger:
    """True masks and answers of many pictures, in COCO's form."""

    images: list[dict[str, Any]] = field(default_factory=list)
    truths: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    frequencies: set[str] = field(default_factory=set)

    def add(
        self,
        truth: Truth,
        answers: Sequence[Rle],
        scores: Sequence[float],
        categories: Sequence[int] | None = None,
    ) -> None:
        """Notes a picture.

        Args:
            truth: the picture; its crowd pixels become one crowd mask, as COCO has them.
            answers: masks of its size.
            scores: of the answers; a higher one counts first.
            categories: of the answers; None where kinds are set aside.

        Raises:
            ValueError: columns of different lengths.
        """
        if len(answers) != len(scores) or (categories is not None and len(categories) != len(answers)):
            raise ValueError(f"{truth.name}: {len(answers)} answers, {len(scores)} scores: one each")
        image_id = len(self.images) + 1
        height, width = truth.image.shape[:2]
        self.images.append({"id": image_id, "height": height, "width": width, "file_name": truth.name})
        frequency = truth.frequency_N or ("",) * len(truth.masks_NHW)
        for mask_HW, category, kind in zip(truth.masks_NHW, truth.categories(), frequency, strict=True):
            self._add_truth(image_id, encode_mask(mask_HW), category, kind, crowd=False)
        if truth.crowd_HW is not None and truth.crowd_HW.any():
            for category in sorted(set(truth.categories())) or [1]:
                self._add_truth(image_id, encode_mask(truth.crowd_HW), category, "", crowd=True)
        kinds = categories if categories is not None else [1] * len(answers)
        self.answers += [
            {"image_id": image_id, "segmentation": rle.to_coco(), "score": float(score), "category_id": kind}
            for rle, score, kind in zip(answers, scores, kinds, strict=True)
        ]

    def _add_truth(self, image_id: int, rle: Rle, category: int, frequency: str, *, crowd: bool) -> None:
        self.truths.append(
            {
                "id": len(self.truths) + 1,
                "image_id": image_id,
                "category_id": category,
                "segmentation": rle.to_coco(),
                "area": area_px(rle),
                "bbox": [0, 0, 1, 1],  # unused: masks are compared, not boxes
                "iscrowd": int(crowd),
                "frequency": frequency,
            }
        )
        self.frequencies |= {frequency} - {""}

    def average_precision(self) -> dict[str, float]:
        """COCO's AP, AP50, AP75 and AP by size, of masks; NaN where no mask is of that size."""
        done = _evaluate(self, use_kinds=True, max_dets=(1, 10, 100))
        names = ("ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large")
        with contextlib.redirect_stdout(io.StringIO()):
            done.summarize()
        return {name: _or_nan(float(done.stats[i])) for i, name in enumerate(names)}

    def average_recall(self, max_dets: Sequence[int] = MAX_DETS) -> dict[str, float]:
        """AR at each number of proposals, over all masks, by size, and by frequency where it is known."""
        figures = _recalls(self, max_dets, "")
        for letter in sorted(self.frequencies):
            figures |= _recalls(self, max_dets, letter)
        return figures


def _recalls(ledger: MaskLedger, max_dets: Sequence[int], frequency: str) -> dict[str, float]:
    recall_TKAM = _evaluate(ledger, use_kinds=False, max_dets=max_dets, frequency=frequency).eval["recall"]
    figures = {}
    for a, area in enumerate(AREAS if not frequency else AREAS[:1]):
        suffix = f"_{FREQUENCIES[frequency]}" if frequency else "" if area == "all" else f"_{area}"
        for m, most in enumerate(max_dets):
            found = recall_TKAM[:, :, a, m]
            found = found[found > -1]
            figures[f"ar_{most}{suffix}"] = float(found.mean()) if found.size else float("nan")
    return figures


def _evaluate(
    ledger: MaskLedger, *, use_kinds: bool, max_dets: Sequence[int], frequency: str = ""
) -> COCOeval:
    truths: list[Mapping[str, Any]] = [
        one if frequency in ("", one["frequency"]) else {**one, "area": -1}  # outside every size: ignored
        for one in ledger.truths
    ]
    kinds = sorted({one["category_id"] for one in (*truths, *ledger.answers)}) or [1]
    with contextlib.redirect_stdout(io.StringIO()):
        expected, given = COCO(), COCO()
        shared = {"images": ledger.images, "categories": [{"id": kind} for kind in kinds]}
        expected.dataset = {**shared, "annotations": [dict(one) for one in truths]}
        expected.createIndex()
        given.dataset = {
            **shared,
            "annotations": [
                {**one, "id": i + 1, "area": area_px(Rle.from_coco(one["segmentation"])), "iscrowd": 0}
                for i, one in enumerate(ledger.answers)
            ],
        }
        given.createIndex()
        done = COCOeval(expected, given, "segm")
        done.params.useCats = int(use_kinds)
        done.params.maxDets = list(max_dets)
        done.params.iouThrs = np.linspace(0.5, 0.95, 10)
        done.evaluate()
        done.accumulate()
    return done


def _or_nan(value: float) -> float:
    return value if value >= 0 else float("nan")
