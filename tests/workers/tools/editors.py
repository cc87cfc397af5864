"""What an annotator does in each editor, in the editor's own file; and what is held against it after."""

from __future__ import annotations

import base64
import copy
import io
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.rle import Rle, decode
from maskmill.workers.exports.export import export
from maskmill.workers.reading.samples import read_annotated
from maskmill.workers.tools import brush_rle, cvat, fiftyone, label_studio
from maskmill.workers.tools.take_back import TakenBack, take_back
from tests.workers.published import Published

NOW = "2025-02-01T00:00:00+00:00"
KEY = "000000001"
Mask = NDArray[np.bool_]


def files_of(data: Published) -> dict[str, bytes]:
    root = Path(data.store.root)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def masks_of(data: Published) -> dict[int, Mask]:
    for sample in read_annotated(data.store, data.generation):
        if sample.key == KEY:
            return {r["id"]: decode(Rle.from_coco(r["segmentation"])) for r in sample.record["annotations"]}
    raise AssertionError


def back(data: Published, path: Path, format: str, who: str = "Ana") -> TakenBack:
    return take_back(data.store, [path], format=format, generation=data.generation, who=who, created_utc=NOW)


def label_studio_file(folder: Path, edit: Callable[[list[dict[str, Any]]], None] | None = None) -> Path:
    """The project's JSON export after an annotator submitted every task, begun from its prediction."""
    tasks = json.loads((folder / label_studio.TASKS).read_text())
    for number, task in enumerate(tasks, 1):
        result = copy.deepcopy(task["predictions"][0]["result"])
        for place, region in enumerate(result):
            region["id"] = f"new{place}"  # a copy of a prediction gets new ids; its meta stays
            region.pop("score")
        if edit is not None and task["data"]["maskmill"]["key"] == KEY:
            edit(result)
        task["id"] = number
        old = {"id": 1, "result": [], "was_cancelled": True, "updated_at": "2030-01-01"}
        done = {
            "id": 2,
            "completed_by": {"email": "ana@example.org"},
            "was_cancelled": False,
            "lead_time": 12.5,
            "updated_at": "2025-02-01",
            "result": result,
        }
        task["annotations"] = [old, done]
    path = folder / "project-1.json"
    path.write_text(json.dumps(tasks))
    return path


def cvat_file(folder: Path, edit: Callable[[ElementTree.Element], None] | None = None) -> Path:
    tree = ElementTree.parse(folder / cvat.ANNOTATIONS)
    for image in tree.getroot().iter("image"):
        if edit is not None and image.attrib["name"] == "sa_1.jpg":
            edit(image)
    path = folder / "task.xml"
    tree.write(path)
    return path


def erase_label_studio(result: list[dict[str, Any]]) -> None:
    region = result[0]
    size = {"height": region["original_height"], "width": region["original_width"]}
    mask_HW = brush_rle.decode(region["value"]["rle"], **size)
    region["value"]["rle"] = brush_rle.encode(halved(mask_HW))


def erase_cvat(image: ElementTree.Element) -> None:
    mask = next(image.iter("mask"))
    wide, high = int(mask.attrib["width"]), int(mask.attrib["height"])
    runs = [int(part) for part in mask.attrib["rle"].split(",")]
    crop = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(high, wide)
    crop[: high // 2] = False
    mask.set("rle", ", ".join(map(str, cvat._runs(crop))))


def halved(mask_HW: Mask) -> Mask:
    changed = mask_HW.copy()
    rows = np.flatnonzero(mask_HW.any(axis=1))
    changed[: rows[0] + (rows[-1] - rows[0] + 1) // 2] = False
    return changed


def fiftyone_folder(folder: Path, edit: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """The folder that FiftyOne exports again; benchmarks/consumers has the real one write it."""
    found = json.loads((folder / fiftyone.SAMPLES).read_text())
    for sample in found["samples"]:
        sample["_dataset_id"] = {"$oid": "0" * 24}
        if edit is not None and sample[fiftyone.KEY] == KEY:
            edit(sample)
    back = folder.with_name("back")
    back.mkdir()
    (back / fiftyone.SAMPLES).write_text(json.dumps(found))
    return back


def erase_fiftyone(sample: dict[str, Any]) -> None:
    """The first mask's upper half, the box as it was."""
    packed = sample[fiftyone.FIELD]["detections"][0]["mask"]["$binary"]
    crop = np.load(io.BytesIO(zlib.decompress(base64.b64decode(packed["base64"]))))
    crop[: len(crop) // 2] = False
    packed["base64"] = base64.b64encode(fiftyone._packed(crop)).decode()


FILES = {
    "label_studio": (label_studio_file, erase_label_studio),
    "cvat": (cvat_file, erase_cvat),
    "fiftyone": (fiftyone_folder, erase_fiftyone),
}


def exported(data: Published, folder: Path, format: str, **choices: Any) -> Path:
    export(data.store, data.generation, str(folder), format=format, **choices)
    return folder


def annotations(exports: Path, format: str, folder: Path) -> Path:
    """An export without its pictures, to edit."""
    folder.mkdir()
    for path in (exports / format).iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


def tasks_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def ours(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    return next(task for task in tasks if task["data"]["maskmill"]["key"] == KEY)


def as_cvat_exports(path: Path) -> None:
    """The account of the task that CVAT writes before the images: its labels and their attributes."""
    tree, labels = ElementTree.parse(path), json.loads(path.with_name(cvat.LABELS).read_text())
    told = ElementTree.SubElement(ElementTree.SubElement(tree.getroot(), "meta"), "task")
    for label in labels:
        one = ElementTree.SubElement(told, "label")
        ElementTree.SubElement(one, "name").text = label["name"]
        for attribute in label["attributes"]:
            element = ElementTree.SubElement(one, "attribute")
            ElementTree.SubElement(element, "name").text = attribute["name"]
            ElementTree.SubElement(element, "default_value").text = attribute["default_value"]
    tree.write(path)
