"""A Parquet export in numbers, from the files themselves: what is published is what is counted.

Only the columns with numbers are read, a row group at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from maskmill.workers.exports.categories import OBJECT

Floats = NDArray[np.float64]

SHARE_EDGES = np.array([0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
MASKS_EDGES = np.array([0, 1, 5, 10, 20, 50, 100, 200, 500, np.inf])
IOU_EDGES = np.linspace(0.0, 1.0, 21)


@dataclass
class Numbers:
    """What a dataset's files hold.

    Attributes:
        images, masks, captions, crowds: counts; `images_by_split` by `datasets`' names.
        categories: masks by class.
        share, iou, per_image: histograms over `SHARE_EDGES` (a mask's share of its image), `IOU_EDGES`
            (predicted) and `MASKS_EDGES` (masks of an image).
        mean_width, mean_height: of the images, in px.
    """

    images: int = 0
    masks: int = 0
    captions: int = 0
    crowds: int = 0
    images_by_split: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    share: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SHARE_EDGES) - 1, np.int64))
    iou: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(IOU_EDGES) - 1, np.int64))
    per_image: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(MASKS_EDGES) - 1, np.int64))
    mean_width: float = 0.0
    mean_height: float = 0.0

    @property
    def masks_per_image(self) -> float:
        """The mean; 0 without images."""
        return self.masks / self.images if self.images else 0.0

    def told(self) -> dict[str, object]:
        """As JSON, for what reads cards."""
        return {
            "images": self.images,
            "masks": self.masks,
            "masks_per_image": round(self.masks_per_image, 3),
            "images_by_split": dict(self.images_by_split),
            "categories": len(self.categories),
        }


def count_files(folder: Path, names: Sequence[str]) -> Numbers:
    """Counts the Parquet files of an export.

    Args:
        folder: of the export.
        names: of the files, as `data/train-00000.parquet`.
    """
    found = Numbers()
    sides = np.zeros(2)
    for name in names:
        split = name.rpartition("/")[2].rpartition("-")[0]
        file = pq.ParquetFile(folder / name)
        for group in range(file.num_row_groups):
            columns = ["width", "height", "caption", "masks"]
            for row in file.read_row_group(group, columns).to_pylist():
                _add(found, row)
                found.images_by_split[split] += 1
                sides += (row["width"], row["height"])
    if found.images:
        found.mean_width, found.mean_height = (sides / found.images).tolist()
    return found


def _add(found: Numbers, row: Mapping[str, object]) -> None:
    """An image's row."""
    masks = row["masks"]
    assert isinstance(masks, list)
    found.images += 1
    found.masks += len(masks)
    found.captions += row["caption"] is not None
    found.crowds += sum(bool(mask["iscrowd"]) for mask in masks)
    found.categories.update(mask["category"] or OBJECT for mask in masks)
    size_px = float(str(row["width"])) * float(str(row["height"]))
    found.per_image += np.histogram([len(masks)], MASKS_EDGES)[0]
    found.share += np.histogram([mask["area"] / size_px for mask in masks], SHARE_EDGES)[0]
    scores = [mask["predicted_iou"] for mask in masks if mask["predicted_iou"] is not None]
    found.iou += np.histogram(np.clip(scores, 0.0, 1.0), IOU_EDGES)[0]
