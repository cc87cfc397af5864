"""What the verdicts column stores of a picture: a record, and a row of the index a mask.

    {"image_id", "calibrated", "share_found", "verdicts": [{"id", "expected_iou", "p_right"}, ...],
     "unexplained": {"rows", "columns", "cells"}}

`cells` is the map of where something may lie without a mask, base64 of a byte a cell, row by row, 255 for
sure.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE
from maskmill.storage.shards.index import IndexField
from maskmill.workers.stages.base import EncodedSample, Picture, encode_record

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from maskmill.pipeline.verify.verifier import PictureVerdicts

VERDICTS = "verdicts"
DIGITS = 4
MAP_CELLS = 32
"""Of the stored map, along its longer side."""

INDEX = (
    IndexField("key", "string"),
    IndexField("annotation_id", "int64"),
    IndexField("expected_iou", "float64"),
    IndexField("p_right", "float64"),
    IndexField("share_found", "float64"),
)
"""A row per mask; `share_found` is the picture's."""


def encode_verdicts(picture: Picture, found: PictureVerdicts) -> EncodedSample:
    """The record of a picture's verdicts, and its index rows."""
    first = picture.image_id * ANNOTATION_IDS_PER_IMAGE
    numbers = zip(found.masks.expected_iou_N.tolist(), found.masks.right_N.tolist(), strict=True)
    rows = [
        {"id": first + place, "expected_iou": round(iou, DIGITS), "p_right": round(right, DIGITS)}
        for place, (iou, right) in enumerate(numbers)
    ]
    share_found = None if found.share_found is None else round(found.share_found, DIGITS)
    record = {
        "image_id": picture.image_id,
        "calibrated": found.is_calibrated,
        "share_found": share_found,
        VERDICTS: rows,
        "unexplained": None if found.unexplained_RC is None else _stored_map(found.unexplained_RC),
    }
    index = [
        {
            "key": picture.key,
            "annotation_id": row["id"],
            "expected_iou": row["expected_iou"],
            "p_right": row["p_right"],
            "share_found": share_found,
        }
        for row in rows
    ]
    return dataclasses.replace(encode_record(picture.key, record), rows=index)


def unexplained_of(record: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """float32[R, C], 0 to 1: the map of a record.

    Raises:
        ValueError, KeyError: the record has none, or a damaged one.
    """
    import numpy as np

    told = record["unexplained"]
    cells = np.frombuffer(base64.b64decode(told["cells"], validate=True), np.uint8)
    map_RC = cells.reshape(told["rows"], told["columns"]).astype(np.float32)
    map_RC /= 255
    return map_RC


def _stored_map(map_RC: npt.NDArray[np.float32]) -> dict[str, Any]:
    """The map's means over larger cells, a byte each."""
    import numpy as np

    step = -(-max(map_RC.shape) // MAP_CELLS)
    rows, columns = (-(-side // step) for side in map_RC.shape)
    row_starts, column_starts = np.arange(rows) * step, np.arange(columns) * step
    sums = np.add.reduceat(np.add.reduceat(map_RC, row_starts, axis=0), column_starts, axis=1)
    heights = np.diff([*row_starts, map_RC.shape[0]])
    widths = np.diff([*column_starts, map_RC.shape[1]])
    cells = (sums / (heights[:, None] * widths) * 255).round().astype(np.uint8)
    return {"rows": rows, "columns": columns, "cells": base64.b64encode(cells.tobytes()).decode("ascii")}
