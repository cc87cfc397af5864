"""CVAT: masks as its "CVAT for images 1.1" file has them, out and back.

    annotations.xml    labels.json (for the task's raw labels)    images/sa_1.jpg

How it works: make a task of the images with labels.json, upload annotations.xml to it; export it again in the
same format, and hand back the zip or what is in it. A mask's id and label are attributes of its label, which
CVAT keeps; so is what was given, as their default: "generation 3", and "some masks" where an export left out
others. CVAT's run lengths are rows of the mask's own box, beginning with what isn't of it. Polygons that
people drew come back as masks.

It doesn't know: shapes other than masks and polygons, tracks and tags; those are refused, not dropped.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.rle import Rle, decode, encode_mask
from maskmill.storage.errors import InputError
from maskmill.workers.exports.categories import OBJECT
from maskmill.workers.exports.chosen.selection import Selection, class_of
from maskmill.workers.exports.maps.writing import MapFormat, MapOfImage, export_maps
from maskmill.workers.foreign.annotations import BadAnnotation
from maskmill.workers.foreign.shapes import shape_of
from maskmill.workers.tools.edited import (
    EditedImage,
    EditedMask,
    image_id_of,
    mask_id_of,
    one_label,
    said,
    size_of,
)

if TYPE_CHECKING:
    from maskmill.workers.exports.formats import ExportTask
    from maskmill.workers.exports.report import ExportReport
    from maskmill.workers.exports.samples import ExportImage

ANNOTATIONS, LABELS = "annotations.xml", "labels.json"
ID, LABEL, GIVEN = "maskmill_id", "maskmill_label", "maskmill_given"
SOME = "some masks"


def write(task: ExportTask) -> ExportReport:
    """Writes CVAT's file, the labels, and the photographs; see `WriteExport`."""
    selection = Selection(task.store, task.generation, task.choices)
    given = f"generation {task.generation.number}" + (f", {SOME}" if task.choices.some_masks else "")
    return export_maps(task, selection, _Images(task.choices.classes, given))


class _Images(MapFormat):
    """The images of an export; see the file's header."""

    folder = ""

    def __init__(self, classes: tuple[str, ...], given: str) -> None:
        super().__init__()
        self._labels = dict.fromkeys(classes)
        self._given = given
        self._parts: list[str] = []

    def map_of(self, image: ExportImage) -> MapOfImage:
        """See `MapFormat`: an element, and no map."""
        info, rows = image.record["image"], image.record["annotations"]
        labels = [class_of(row) or OBJECT for row in rows]
        self._labels |= dict.fromkeys(labels)
        masks = "".join(
            _element(decode(Rle.from_coco(row["segmentation"])), label, row["id"])
            for row, label in zip(rows, labels, strict=True)
            if row["area"]
        )
        size = f'width="{info["width"]}" height="{info["height"]}"'
        self._parts.append(
            f'  <image id="{len(self._parts)}" name="{image.stem}.jpg" {size}>\n{masks}  </image>\n'
        )
        return MapOfImage(None, len(rows))

    def files(self) -> dict[str, bytes]:
        """See `MapFormat`."""
        head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        defaults = {ID: "", LABEL: "", GIVEN: self._given}
        attributes = [
            {"name": name, "mutable": False, "input_type": "text", "values": [value], "default_value": value}
            for name, value in defaults.items()
        ]
        labels = [{"name": name, "attributes": attributes} for name in self._labels or {OBJECT: None}]
        return {
            ANNOTATIONS: (head + "".join(self._parts) + "</annotations>\n").encode(),
            LABELS: json.dumps(labels, indent=1, ensure_ascii=False).encode(),
        }


def _element(mask_HW: NDArray[np.bool_], label: str, mask_id: int) -> str:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    crop_HW = mask_HW[top : rows[-1] + 1, left : columns[-1] + 1]
    place = f'left="{left}" top="{top}" width="{crop_HW.shape[1]}" height="{crop_HW.shape[0]}"'
    runs = ", ".join(map(str, _runs(crop_HW)))
    return (
        f'    <mask label={quoteattr(label)} source="auto" occluded="0" rle="{runs}" {place} z_order="0">\n'
        f'      <attribute name="{ID}">{mask_id}</attribute>\n'
        f'      <attribute name="{LABEL}">{escape(label)}</attribute>\n    </mask>\n'
    )


def _runs(crop_HW: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs, row after row, the first of what isn't in the mask."""
    flat = crop_HW.ravel()
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    lengths: list[int] = np.diff(bounds).tolist()
    return [0, *lengths] if flat[0] else lengths


def read(path: Path) -> Iterator[EditedImage]:
    """The pictures of a "CVAT for images 1.1" export.

    Args:
        path: the zip that CVAT gives, the folder it was unpacked to, or annotations.xml in it.

    Raises:
        InputError: no such export, or a shape that is no mask.
    """
    text = _annotations(path)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise InputError(f"{path}: declares entities, which CVAT's exports don't")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as exc:
        raise InputError(f"{path}: CVAT's export cannot be read ({exc})") from exc
    track = root.find("track")
    if track is not None:
        name = f"track {track.get('id')} ({track.get('label')})"
        raise InputError(
            f"{path}: {name} is of a video: make its shapes ones of single images, and export the task as "
            '"CVAT for images 1.1"'
        )
    if root.tag != "annotations" or root.find("image") is None:
        raise InputError(f'{path}: has no images: export the task as "CVAT for images 1.1"')

    given = _given(root)
    for image in root.iter("image"):
        place = f"{path}: {image.get('name')}"
        try:
            yield _edited(image, given, place)
        except (InputError, KeyError, ValueError, BadAnnotation) as exc:
            raise InputError(f"{place}: {said(exc)}") from exc


def _annotations(path: Path) -> bytes:
    """The text of annotations.xml, wherever it is. Raises InputError."""
    try:
        if not path.is_dir() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                return packed.read(ANNOTATIONS)
        return (path / ANNOTATIONS if path.is_dir() else path).read_bytes()
    except KeyError as exc:
        raise InputError(f'{path}: has no {ANNOTATIONS}: export the task as "CVAT for images 1.1"') from exc
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as exc:
        raise InputError(f"{path}: CVAT's export cannot be read ({exc})") from exc


def _given(root: ElementTree.Element) -> str:
    """What the task was given, as its labels' attributes say in CVAT's account of it; "" where they don't."""
    for attribute in root.iter("attribute"):
        if attribute.findtext("name") == GIVEN:
            return (attribute.findtext("default_value") or attribute.findtext("values") or "").strip()
    return ""


def _edited(image: ElementTree.Element, given: str, place: str) -> EditedImage:
    """What stands in an image's element. Raises ValueError, KeyError."""
    height, width = size_of(image.attrib["height"], image.attrib["width"])
    masks, labels = [], dict[int, str]()
    for number, shape in enumerate(image, 1):
        told = {one.get("name"): (one.text or "").strip() for one in shape.iter("attribute")}
        mask_id = mask_id_of(told.get(ID))
        if mask_id is not None and told.get(LABEL):
            labels.setdefault(mask_id, told[LABEL])
        try:
            mask_HW = _pixels(shape, height, width)
            label = one_label([shape.attrib["label"]])
        except (KeyError, ValueError, BadAnnotation) as exc:
            raise ValueError(f"shape {number} ({shape.get('label')}): {said(exc)}") from exc
        if mask_HW.any():
            masks.append(EditedMask(mask_id, encode_mask(mask_HW).to_coco(), label))
    generation = re.search(r"generation ([0-9]+)", given)
    return EditedImage(
        image_id=image_id_of(image.attrib["name"]),
        masks=tuple(masks),
        generation=int(generation[1]) if generation else None,
        place=place,
        given=labels,
        all_given=SOME not in given,
    )


def _pixels(shape: ElementTree.Element, height: int, width: int) -> NDArray[np.bool_]:
    """A shape's pixels. Raises ValueError, KeyError, BadAnnotation."""
    if shape.tag == "tag":
        raise ValueError("a tag is of a whole picture, which has none here: take it out")
    if shape.tag not in ("mask", "polygon"):
        raise ValueError(f"a {shape.tag} is no mask: use masks or polygons, or take it out")
    return _mask(shape, height, width) if shape.tag == "mask" else _polygon(shape, height, width)


def _mask(shape: ElementTree.Element, height: int, width: int) -> NDArray[np.bool_]:
    left, top, wide, high = (int(shape.attrib[name]) for name in ("left", "top", "width", "height"))
    runs: Sequence[int] = [int(part) for part in shape.attrib["rle"].split(",")]
    if min(runs) < 0 or sum(runs) != wide * high:
        raise ValueError(f"a mask of {wide}x{high} px has run lengths of {sum(runs)} px")
    if min(left, top) < 0 or left + wide > width or top + high > height:
        raise ValueError("a mask lies outside of its image")
    values = np.arange(len(runs)) % 2 == 1
    mask_HW = np.zeros((height, width), np.bool_)
    mask_HW[top : top + high, left : left + wide] = np.repeat(values, runs).reshape(high, wide)
    return mask_HW


def _polygon(shape: ElementTree.Element, height: int, width: int) -> NDArray[np.bool_]:
    flat = [float(side) for point in shape.attrib["points"].split(";") for side in point.split(",")]
    return decode(shape_of({"segmentation": [flat]}, height, width).rle)
