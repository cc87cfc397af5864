"""Label Studio: a task a picture, its masks as a prediction of brush strokes; what people made of them, back.

    tasks.json    config.xml (the labels)    images/sa_1.jpg

How it works: each mask's region carries its id twice, as the region's own id and in its `meta`, which stays
when an annotator begins from the prediction and regions get new ids. The picture is found by `/data/local-
files/?d=images/sa_1.jpg` (LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true, document root the export's folder),
or by name where it was uploaded. Back comes Label Studio's own JSON export: of each task the last annotation
that wasn't cancelled.

It doesn't know: regions other than brushes and polygons; those are refused, not dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.rle import Rle, encode_mask
from maskmill.pipeline.rle import decode as decode_mask
from maskmill.storage.errors import InputError
from maskmill.workers.exports.categories import OBJECT
from maskmill.workers.exports.chosen.selection import Selection, class_of
from maskmill.workers.exports.maps.writing import MapFormat, MapOfImage, export_maps
from maskmill.workers.foreign.annotations import BadAnnotation
from maskmill.workers.foreign.shapes import shape_of
from maskmill.workers.tools import brush_rle
from maskmill.workers.tools.edited import EditedImage, EditedMask, image_id_of

if TYPE_CHECKING:
    from maskmill.workers.exports.formats import ExportTask
    from maskmill.workers.exports.report import ExportReport
    from maskmill.workers.exports.samples import ExportImage

TASKS, CONFIG = "tasks.json", "config.xml"
TAG, IMAGE = "tag", "image"
MARK = "maskmill "


def write(task: ExportTask) -> ExportReport:
    """Writes tasks with their masks as predictions, the labels, and the photographs; see `WriteExport`."""
    selection = Selection(task.store, task.generation, task.choices)
    return export_maps(task, selection, _Tasks(task.generation.number, task.choices.classes))


class _Tasks(MapFormat):
    """The tasks of an export; see the file's header."""

    folder = ""

    def __init__(self, generation: int, classes: tuple[str, ...]) -> None:
        super().__init__()
        self._generation = generation
        self._labels = dict.fromkeys(classes)
        self._tasks: list[dict[str, Any]] = []

    def map_of(self, image: ExportImage) -> MapOfImage:
        """See `MapFormat`: a task, and no map."""
        info, rows = image.record["image"], image.record["annotations"]
        regions = [_region(row, info["height"], info["width"]) for row in rows]
        self._labels |= dict.fromkeys(region["value"]["brushlabels"][0] for region in regions)
        prediction = {"model_version": f"maskmill generation {self._generation}", "result": regions}
        data = {
            IMAGE: f"/data/local-files/?d=images/{image.stem}.jpg",
            "maskmill": {"generation": self._generation, "key": image.sample.key},
        }
        self._tasks.append({"data": data, "predictions": [prediction]})
        return MapOfImage(None, len(rows))

    def files(self) -> dict[str, bytes]:
        """See `MapFormat`."""
        labels = "".join(f"\n    <Label value={quoteattr(one)}/>" for one in self._labels or {OBJECT: None})
        config = (
            f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>\n'
            f'  <BrushLabels name="{TAG}" toName="{IMAGE}">{labels}\n  </BrushLabels>\n</View>\n'
        )
        return {TASKS: json.dumps(self._tasks, ensure_ascii=False).encode(), CONFIG: config.encode()}


def _region(row: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """A mask as a brush region."""
    rle = brush_rle.encode(decode_mask(Rle.from_coco(row["segmentation"])))
    return {
        "id": f"m{row['id']}",
        "meta": {"text": [f"{MARK}{row['id']}"]},
        "type": "brushlabels",
        "from_name": TAG,
        "to_name": IMAGE,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": row.get("predicted_iou"),
        "value": {"format": "rle", "rle": rle, "brushlabels": [class_of(row) or OBJECT]},
    }


def read(path: Path) -> Iterator[EditedImage]:
    """The pictures of Label Studio's JSON export that somebody annotated.

    Raises:
        InputError: no such export, or a region that is no mask.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise InputError(f"{path}: Label Studio's export cannot be read ({exc})") from exc
    if not isinstance(tasks, list) or not all(isinstance(one, dict) and "data" in one for one in tasks):
        raise InputError(
            f"{path}: is no JSON export of Label Studio's: export a project as JSON, not JSON-MIN"
        )
    for task in tasks:
        done = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
        if done:
            try:
                yield _edited(task, max(done, key=lambda one: str(one.get("updated_at") or "")))
            except (KeyError, TypeError, AttributeError, ValueError, BadAnnotation) as exc:
                raise InputError(f"{path}: task {task.get('id')}: {exc}") from exc


def _edited(task: Mapping[str, Any], annotation: Mapping[str, Any]) -> EditedImage:
    """What an annotation leaves of a task's picture. Raises ValueError, KeyError."""
    masks = []
    for region in annotation["result"]:
        height, width = int(region["original_height"]), int(region["original_width"])
        mask_HW = _mask_of(region, height, width)
        if mask_HW.any():
            label = (region["value"].get(region["type"]) or [OBJECT])[0]
            masks.append(EditedMask(_id_of(region), encode_mask(mask_HW).to_coco(), str(label)))
    told = task["data"].get("maskmill") or {}
    by = annotation.get("completed_by")
    who = by.get("email") or by.get("username") or "" if isinstance(by, Mapping) else ""
    return EditedImage(
        image_id=image_id_of(str(task["data"][IMAGE])),
        masks=tuple(masks),
        who=str(who),
        seconds=float(annotation.get("lead_time") or 0.0),
        generation=told.get("generation"),
    )


def _mask_of(region: Mapping[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    value = region["value"]
    if "rle" in value:
        return brush_rle.decode(value["rle"], height=height, width=width)
    if "points" in value:
        points_xy = np.array(value["points"], np.float64) * (width, height) / 100
        return decode_mask(shape_of({"segmentation": [points_xy.ravel().tolist()]}, height, width).rle)
    raise ValueError(f"a region of the type {region.get('type')!r} is no mask: use brushes or polygons")


def _id_of(region: Mapping[str, Any]) -> int | None:
    """The mask a region was begun from."""
    texts = (region.get("meta") or {}).get("text") or []
    for text in [texts] if isinstance(texts, str) else texts:
        if found := re.fullmatch(rf"{MARK}(\d+)", str(text)):
            return int(found[1])
    found = re.fullmatch(r"m(\d+)", str(region.get("id")))
    return int(found[1]) if found else None
