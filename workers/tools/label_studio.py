"""Label Studio: a task a picture, its masks as a prediction of brush strokes; what people made of them, back.

    tasks.json    config.xml (the labels)    images/sa_1.jpg

How it works: each mask's region carries its id twice, as the region's own id and in its `meta`, which stays
when an annotator begins from the prediction and regions get new ids. The picture is found by `/data/local-
files/?d=images/sa_1.jpg` (LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true, document root the export's folder),
or by name where it was uploaded. Each task says which masks it was given. Back comes Label Studio's own JSON
export: of each task everybody's last annotation that wasn't cancelled, the newest first. A task without one
is told of, and stays as it was.

It doesn't know: regions other than brushes and polygons; those are refused, not dropped.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from maskmill.workers.tools.edited import (
    DRAFT,
    SKIPPED,
    UNTOUCHED,
    EditedImage,
    EditedMask,
    given_in,
    image_id_of,
    one_label,
    said,
    size_of,
    told_of,
)

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
            "maskmill": {
                "generation": self._generation,
                "key": image.sample.key,
                "given": told_of(rows),
            },
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
        name = f"{path}: task {task.get('id')}"
        try:
            name += f" ({task['data'].get(IMAGE)})"
            found = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
            if found:
                yield from _edits(task, found, name)
            else:
                yield EditedImage(image_id_of(str(task["data"][IMAGE])), (), place=name, left=_left(task))
        except (InputError, KeyError, TypeError, AttributeError, ValueError, BadAnnotation) as exc:
            raise InputError(f"{name}: {said(exc)}") from exc


def _left(task: Mapping[str, Any]) -> str:
    """Why a task has no annotation."""
    if task.get("annotations"):
        return SKIPPED
    return DRAFT if task.get("drafts") else UNTOUCHED


def _edits(task: Mapping[str, Any], found: Sequence[Mapping[str, Any]], name: str) -> Iterator[EditedImage]:
    """Everybody's last annotation of a task, the newest first. Raises ValueError, KeyError."""
    last: dict[str, Mapping[str, Any]] = {}
    for one in sorted(found, key=lambda each: str(each.get("updated_at") or "")):
        by = one.get("completed_by")
        person = by.get("id", by.get("email")) if isinstance(by, Mapping) else by
        last.pop(str(person), None)
        last[str(person)] = one
    for one in reversed(last.values()):
        yield _edited(task, one, name, alone=len(last) == 1)


def _edited(task: Mapping[str, Any], annotation: Mapping[str, Any], name: str, *, alone: bool) -> EditedImage:
    """What an annotation leaves of a task's picture. Raises ValueError, KeyError."""
    regions: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for place, region in enumerate(annotation["result"]):
        regions[str(region.get("id") or f"number {place + 1}")].append(region)
    masks = [mask for which, parts in regions.items() if (mask := _mask(which, parts)) is not None]

    told = task["data"].get("maskmill") or {}
    return EditedImage(
        image_id=image_id_of(str(task["data"][IMAGE])),
        masks=tuple(masks),
        who=_who(annotation.get("completed_by"), alone=alone),
        seconds=float(annotation.get("lead_time") or 0.0),
        generation=told.get("generation"),
        place=name,
        given=given_in(told.get("given")),
        all_given="given" not in told,
    )


def _who(by: object, *, alone: bool) -> str:
    """Whose an annotation is: a name where there is one, a number where there are several people."""
    if isinstance(by, Mapping):
        return str(by.get("email") or by.get("username") or "")
    return "" if alone or by is None else f"user {by}"


def _mask(which: str, parts: Sequence[Mapping[str, Any]]) -> EditedMask | None:
    """A region's mask; None where every pixel was erased.

    A region is one result, or two with the same id where shape and label are tags of their own.

    Raises:
        ValueError: it is no mask; says which.
    """
    try:
        shapes = [part for part in parts if {"rle", "points"} & set(part.get("value") or ())]
        for part in parts:
            if part not in shapes and part.get("type") != "labels":
                kind = str(part.get("type")).removesuffix("labels")
                raise ValueError(f"a {kind} is no mask: use a brush or a polygon, or take it out")
        if not shapes:
            raise ValueError("it is no mask: use a brush or a polygon, or take it out")
        shape = shapes[0]
        drawn = [(part["value"].get("rle"), part["value"].get("points")) for part in shapes]
        if any(one != drawn[0] for one in drawn):
            raise ValueError(f"{len(drawn)} shapes have this id: draw each as a region of its own")
        if shape.get("image_rotation"):
            raise ValueError(f"its picture was turned by {shape['image_rotation']} degrees: turn it back")

        mask_HW = _pixels(shape, *size_of(shape["original_height"], shape["original_width"]))
        label = one_label(word for part in parts for word in part["value"].get(part["type"]) or ())
    except (KeyError, ValueError, TypeError, BadAnnotation) as exc:
        raise ValueError(f"region {which}: {said(exc)}") from exc
    return EditedMask(_id_of(shape), encode_mask(mask_HW).to_coco(), label) if mask_HW.any() else None


def _pixels(region: Mapping[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """A brush's or a polygon's pixels. Raises ValueError, BadAnnotation."""
    value = region["value"]
    if "rle" in value:
        return brush_rle.decode(value["rle"], height=height, width=width)
    if value.get("closed") is False:
        raise ValueError("its outline is open: close it, or take it out")
    points_xy = np.array(value["points"], np.float64) * (width, height) / 100
    return decode_mask(shape_of({"segmentation": [points_xy.ravel().tolist()]}, height, width).rle)


def _id_of(region: Mapping[str, Any]) -> int | None:
    """The mask a region was begun from."""
    texts = (region.get("meta") or {}).get("text") or []
    marked = [(MARK, text) for text in ([texts] if isinstance(texts, str) else texts)]
    for mark, text in (*marked, ("m", region.get("id"))):
        if found := re.fullmatch(rf"{mark}([0-9]+)", str(text)):
            return int(found[1])
    return None
