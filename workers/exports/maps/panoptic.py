"""COCO's panoptic form: a PNG of segment ids for each image, and one JSON a split that names the segments.

    panoptic.json   panoptic/sa_1.png   images/sa_1.jpg    (panoptic_train.json, panoptic_train/, ...)

How it works: a segment's id is the mask's place in its image, from 1, written as COCO does: red + 256 green +
65536 blue. Where masks overlap the smaller lies on the larger (layers.py), and areas and boxes are of what
shows. Every class is a thing: nothing here is known of stuff, nor are pixels without a mask of any segment.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskmill.workers.exports.categories import Categories
from maskmill.workers.exports.chosen.selection import Selection, class_of
from maskmill.workers.exports.given import KeptEntries, given_categories, is_crowd
from maskmill.workers.exports.maps.layers import HIDDEN, map_of_masks
from maskmill.workers.exports.maps.writing import MapFormat, MapOfImage, export_maps, split_name

if TYPE_CHECKING:
    from maskmill.workers.exports.formats import ExportTask
    from maskmill.workers.exports.report import ExportReport
    from maskmill.workers.exports.samples import ExportImage


def write(task: ExportTask) -> ExportReport:
    """Writes PNGs of segments, their JSON and, if wanted, the photographs; see `WriteExport`."""
    generation, choices = task.generation, task.choices
    kept = KeptEntries(task.store, generation, choices.ids_of) if choices.ids_of else None
    selection = Selection(task.store, generation, choices)
    given = given_categories(generation, choices.ids_of or choices.column)
    maps = _Panoptic(generation.number, Categories(given, choices.classes), selection.split_names, kept=kept)
    return export_maps(task, selection, maps)


class _Panoptic(MapFormat):
    """See the file's header."""

    folder = "panoptic"

    def __init__(
        self,
        generation: int,
        categories: Categories,
        split_names: tuple[str, ...],
        *,
        kept: KeptEntries | None,
    ) -> None:
        """`kept` has an import's image ids, where those are wanted; files keep the export's names."""
        super().__init__()
        self._kept = kept
        self._info = {"description": f"maskmill generation {generation}", "contributor": "maskmill"}
        self._categories = categories
        self._images: dict[str, list[dict[str, Any]]] = {split: [] for split in split_names}
        self._segments: dict[str, list[dict[str, Any]]] = {split: [] for split in split_names}

    def map_of(self, image: ExportImage) -> MapOfImage:
        """See `MapFormat`."""
        info, rows = image.record["image"], image.record["annotations"]
        ids = list(range(1, len(rows) + 1))
        map_HW = map_of_masks(image, ids)
        class_ids = self._categories.count([class_of(row) for row in rows])

        segments = []
        for segment_id, row, class_id in zip(ids, rows, class_ids, strict=True):
            shown = segment_of(map_HW, segment_id)
            if shown is None:
                self.left_out[HIDDEN] += 1
            else:
                told = {"id": segment_id, "category_id": class_id, "iscrowd": int(is_crowd(row))}
                segments.append({**told, **shown})

        id_ = self._kept.id_of(image.sample.key, info["image_id"]) if self._kept else info["image_id"]
        entry = {"id": id_, "width": info["width"], "height": info["height"]}
        self._images[image.split].append({**entry, "file_name": f"{image.stem}.jpg"})
        self._segments[image.split].append(
            {"image_id": id_, "file_name": f"{image.stem}.png", "segments_info": segments}
        )
        return MapOfImage(rgb_of(map_HW), len(segments))

    def files(self) -> dict[str, bytes]:
        """See `MapFormat`."""
        categories = [{**one, "isthing": 1} for one in self._categories.coco()]
        return {
            f"{split_name(self.folder, split)}.json": json.dumps(
                {
                    "info": self._info,
                    "licenses": [],
                    "images": images,
                    "annotations": self._segments[split],
                    "categories": categories,
                },
                separators=(",", ":"),
            ).encode()
            for split, images in self._images.items()
        }


def segment_of(map_HW: NDArray[np.uint32], segment_id: int) -> dict[str, Any] | None:
    """What shows of a segment: its pixels and its box x, y, w, h in px; None where nothing does."""
    mask_HW = map_HW == segment_id
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not rows.size:
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    return {"area": int(mask_HW.sum()), "bbox": [left, top, right - left + 1, bottom - top + 1]}


def rgb_of(map_HW: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Segment ids as COCO's colours: uint8[H, W, 3]."""
    return np.stack([map_HW & 255, map_HW >> 8 & 255, map_HW >> 16 & 255], axis=2).astype(np.uint8)
