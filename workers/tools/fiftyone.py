"""FiftyOne: a dataset folder of its own format, a sample a picture; what people made of it there, back.

    metadata.json    samples.json    images/sa_1.jpg

How it works: `fo.Dataset.from_dir(folder, dataset_type=fo.types.FiftyOneDataset)` reads it. A mask is a
detection of the field `masks`: its box as shares of the picture, its pixels within the box, its id as
`maskmill_id`; which masks a sample was given it says itself. Back comes the folder that
`dataset.export(folder, dataset_type=...)` wrote, with masks in samples.json or as PNGs of their own
(`fields/`). A picture that is not in it stays as it is. Labels in other fields are refused, not dropped.

It doesn't know: FiftyOne, which brings a database; its JSON is MongoDB's. Who edited: it doesn't tell.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskmill.pipeline.rle import Rle, box_xyxy, encode_mask
from maskmill.pipeline.rle import decode as decode_mask
from maskmill.storage.errors import InputError
from maskmill.workers.exports.categories import OBJECT
from maskmill.workers.exports.chosen.selection import Selection, class_of
from maskmill.workers.exports.maps.writing import PICTURES, MapFormat, MapOfImage, export_maps
from maskmill.workers.tools.edited import (
    EditedImage,
    EditedMask,
    given_in,
    image_id_of,
    mask_id_of,
    said,
    size_of,
    told_of,
)

if TYPE_CHECKING:
    from maskmill.workers.exports.formats import ExportTask
    from maskmill.workers.exports.report import ExportReport
    from maskmill.workers.exports.samples import ExportImage

METADATA, SAMPLES = "metadata.json", "samples.json"
FIELD, ID, KEY, GENERATION = "masks", "maskmill_id", "maskmill_key", "maskmill_generation"
GIVEN = "maskmill_given"
VERSION = "1.0.0"
"""Of FiftyOne, whose form this is; later ones migrate it when they read it."""

_FIELDS = "fiftyone.core.fields."
_SINCE = {"$date": "2025-01-01T00:00:00Z"}
_MOST_BYTES = 2**31  # of a mask's pixels, unpacked
_FAR = 4  # a box may be so many times its picture's size, or as far outside
_LABELS = ("Classification", "Detection", "Polyline", "Keypoint", "Segmentation", "Heatmap", "Regression")


def write(task: ExportTask) -> ExportReport:
    """Writes samples with their masks as detections, and the photographs; see `WriteExport`."""
    selection = Selection(task.store, task.generation, task.choices)
    return export_maps(task, selection, _Samples(task.generation.number))


class _Samples(MapFormat):
    """The samples of an export; see the file's header."""

    folder = ""

    def __init__(self, generation: int) -> None:
        super().__init__()
        self._generation = generation
        self._samples: list[dict[str, Any]] = []

    def map_of(self, image: ExportImage) -> MapOfImage:
        """See `MapFormat`: a sample, and no map."""
        info, all_rows = image.record["image"], image.record["annotations"]
        rows = [row for row in all_rows if row["area"]]
        if len(rows) < len(all_rows):
            self.left_out["empty_mask"] += len(all_rows) - len(rows)
        size = {"width": info["width"], "height": info["height"]}
        detections = [_detection(row) for row in rows]
        self._samples.append(
            {
                "_id": _object_id(info["image_id"]),
                "_media_type": "image",
                "_rand": (info["image_id"] * 0.6180339887498949) % 1.0,
                "filepath": f"{PICTURES}/{image.stem}.jpg",
                "tags": [image.split] if image.split else [],
                "metadata": {"_cls": "ImageMetadata", "mime_type": "image/jpeg", **size, "num_channels": 3},
                FIELD: {"_cls": "Detections", "detections": detections},
                KEY: image.sample.key,
                GENERATION: self._generation,
                GIVEN: json.dumps(told_of(rows)),
            }
        )
        return MapOfImage(None, len(rows))

    def files(self) -> dict[str, bytes]:
        """See `MapFormat`."""
        name = f"maskmill generation {self._generation}"
        found = {METADATA: _metadata(name), SAMPLES: {"samples": self._samples}}
        return {name: json.dumps(value, ensure_ascii=False).encode() for name, value in found.items()}


def _detection(row: Mapping[str, Any]) -> dict[str, Any]:
    """A mask as a detection: pixels within its box."""
    mask_HW = decode_mask(Rle.from_coco(row["segmentation"]))
    height, width = mask_HW.shape
    left, top, right, bottom = box_xyxy(Rle.from_coco(row["segmentation"]))
    crop_HW = mask_HW[top : bottom + 1, left : right + 1]
    sides = (left / width, top / height, crop_HW.shape[1] / width, crop_HW.shape[0] / height)
    return {
        "_id": _object_id(row["id"]),
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": class_of(row) or OBJECT,
        "bounding_box": list(sides),
        "mask": {"$binary": {"base64": base64.b64encode(_packed(crop_HW)).decode(), "subType": "00"}},
        "confidence": row.get("predicted_iou"),
        ID: row["id"],
    }


def _packed(mask_HW: NDArray[np.bool_]) -> bytes:
    """An array as FiftyOne keeps it: NumPy's own file, deflated."""
    out = io.BytesIO()
    np.save(out, mask_HW, allow_pickle=False)
    return zlib.compress(out.getvalue())


def _object_id(number: int) -> dict[str, str]:
    """MongoDB's kind of id, unique as the number is."""
    return {"$oid": f"{number:024x}"}


def _metadata(name: str) -> dict[str, Any]:
    """The dataset's document: what fields its samples have. The importer gives ids and dates of its own."""
    whole = [_field(part, "IntField") for part in ("size_bytes", "width", "height", "num_channels")]
    picture = [*whole, _field("mime_type", "StringField")]
    detection = [
        _field("id", "ObjectIdField", db_field="_id"),
        _field("tags", "ListField", subfield="StringField"),
        _field("label", "StringField"),
        _field("bounding_box", "ListField", subfield="FloatField"),
        _field("mask", "ArrayField"),
        _field("mask_path", "StringField"),
        _field("confidence", "FloatField"),
        _field("index", "IntField"),
        _field(ID, "IntField"),
    ]
    listed = _field("detections", "ListField", "labels.Detection", "EmbeddedDocumentField", detection)
    fields = [
        _field("id", "ObjectIdField", db_field="_id"),
        _field("filepath", "StringField"),
        _field("tags", "ListField", subfield="StringField"),
        _field("metadata", "EmbeddedDocumentField", "metadata.ImageMetadata", fields=picture),
        _field("created_at", "DateTimeField"),
        _field("last_modified_at", "DateTimeField"),
        _field(FIELD, "EmbeddedDocumentField", "labels.Detections", fields=[listed]),
        _field(KEY, "StringField"),
        _field(GENERATION, "IntField"),
        _field(GIVEN, "StringField"),
    ]
    return {
        "name": name,
        "slug": name.replace(" ", "-"),
        "version": VERSION,
        "created_at": _SINCE,
        "last_modified_at": _SINCE,
        "last_loaded_at": _SINCE,
        "persistent": False,
        "media_type": "image",
        "group_media_types": {},
        "tags": [],
        "info": {},
        "app_config": {"grid_media_field": "filepath", "media_fields": ["filepath"]},
        "classes": {},
        "default_classes": [],
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "sample_fields": fields,
    }


def _field(
    name: str,
    kind: str,
    document: str | None = None,
    subfield: str | None = None,
    fields: list[dict[str, Any]] | None = None,
    db_field: str | None = None,
) -> dict[str, Any]:
    """A field of FiftyOne's schema."""
    return {
        "name": name,
        "ftype": _FIELDS + kind,
        "embedded_doc_type": f"fiftyone.core.{document}" if document else None,
        "subfield": _FIELDS + subfield if subfield else None,
        "fields": fields or [],
        "db_field": db_field or name,
        "description": None,
        "info": None,
        "read_only": False,
        "created_at": _SINCE,
    }


def read(path: Path) -> Iterator[EditedImage]:
    """The pictures of a folder that FiftyOne exported.

    Args:
        path: the folder, or its samples.json.

    Raises:
        InputError: no such export, or a detection that has no mask.
    """
    file = path / SAMPLES if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise InputError(f"{file}: FiftyOne's export cannot be read ({exc})") from exc
    samples = found.get("samples") if isinstance(found, dict) else None
    if not isinstance(samples, list):
        raise InputError(f"{file}: is no FiftyOneDataset: export with dataset_type=fo.types.FiftyOneDataset")
    for number, sample in enumerate(samples, 1):
        name = sample.get("filepath") if isinstance(sample, dict) else None
        place = f"{file}: {name or f'sample {number}'}"
        try:
            yield _edited(sample, file.parent, place)
        except (InputError, KeyError, TypeError, AttributeError, ValueError, OSError) as exc:
            raise InputError(f"{place}: {said(exc)}") from exc


def _edited(sample: Mapping[str, Any], folder: Path, place: str) -> EditedImage:
    """A sample as it was left. Raises ValueError, KeyError, TypeError."""
    detections = _detections(sample)
    size = sample.get("metadata")
    if not isinstance(size, Mapping):
        raise ValueError(
            "it has no metadata, which hold its size: call dataset.compute_metadata() and export again"
        )
    height, width = size_of(size["height"], size["width"])
    masks = []
    for number, detection in enumerate(detections, 1):
        try:
            mask_HW = _placed(_pixels(detection, folder), detection["bounding_box"], height, width)
        except _UNREADABLE as exc:
            called = f"detection {number} ({detection.get('label')})"
            raise ValueError(f"{called}: {said(exc)}") from exc
        if mask_HW.any():
            label = str(detection.get("label") or OBJECT)
            masks.append(EditedMask(mask_id_of(detection.get(ID)), encode_mask(mask_HW).to_coco(), label))
    told = sample.get(GIVEN)
    return EditedImage(
        image_id=image_id_of(str(sample["filepath"])),
        masks=tuple(masks),
        generation=sample.get(GENERATION),
        place=place,
        given=given_in(json.loads(told)) if told else {},
        all_given=not told,
    )


_UNREADABLE = (
    KeyError,
    TypeError,
    ValueError,
    OSError,
    OverflowError,
    EOFError,
    zlib.error,
    Image.DecompressionBombError,
)
"""What packed arrays and pictures that are none raise."""


def _detections(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A sample's masks. Raises ValueError where they are not there, or labels are in other fields."""
    for name, value in sample.items():
        kind = str(value.get("_cls")) if isinstance(value, Mapping) else ""
        if name != FIELD and kind.removesuffix("s") in _LABELS and _holds_any(value):
            raise ValueError(
                f"its field {name!r} holds {kind}, and only detections of {FIELD!r} come back: move them "
                f"there, with masks, or export without it (dataset.exclude_fields({name!r}))"
            )
    if FIELD not in sample:
        raise ValueError(f"it has no field {FIELD!r}: export with it, under that name")
    found = sample[FIELD]
    if found is None:
        return []
    if not isinstance(found, Mapping) or found.get("_cls", "Detections") != "Detections":
        kind = str(found.get("_cls")) if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(
            f"its field {FIELD!r} holds {kind}: only detections with masks come back; make them such"
        )
    return list(found.get("detections") or ())


def _holds_any(value: Mapping[str, Any]) -> bool:
    """Whether a field has a label: one of its own, or a list with any."""
    lists = [
        each for name, each in value.items() if isinstance(each, list) and name not in ("tags", "logits")
    ]
    return any(lists) if str(value["_cls"]).endswith("s") else True


def _pixels(detection: Mapping[str, Any], folder: Path) -> NDArray[np.bool_]:
    """The mask within the detection's box. Raises ValueError where there is none."""
    packed, path = detection.get("mask"), detection.get("mask_path")
    pixels_HW: NDArray[Any]
    if packed:
        text = packed["$binary"]["base64"] if isinstance(packed, Mapping) else packed
        unpacked = zlib.decompressobj().decompress(base64.b64decode(text), _MOST_BYTES)
        pixels_HW = np.load(io.BytesIO(unpacked), allow_pickle=False)
    elif path:
        with Image.open(folder / str(path)) as picture:
            pixels_HW = np.asarray(picture)
    else:
        raise ValueError("its box has no mask: draw one, or take the box out")
    if pixels_HW.ndim == 3:
        pixels_HW = pixels_HW[:, :, 0]
    if pixels_HW.ndim != 2 or not pixels_HW.size:
        raise ValueError(f"its mask is an array of {' x '.join(map(str, pixels_HW.shape))}: it has two sides")
    inside_HW: NDArray[np.bool_] = pixels_HW != 0
    return inside_HW


def _placed(crop_HW: NDArray[np.bool_], box: Any, height: int, width: int) -> NDArray[np.bool_]:
    """The whole picture's mask: the pixels in their box, scaled where the box was drawn anew."""
    left, top, wide, high = sides = [float(side) for side in box]
    if not all(abs(side) <= _FAR for side in sides):
        raise ValueError(f"its bounding_box is {sides}: shares of the picture's sides, 0 to 1")
    x0, y0 = round(left * width), round(top * height)
    columns, rows = max(1, round(wide * width)), max(1, round(high * height))
    if crop_HW.shape != (rows, columns):
        scaled = Image.fromarray(crop_HW).resize((columns, rows), Image.Resampling.NEAREST)
        crop_HW = np.asarray(scaled)
    mask_HW = np.zeros((height, width), np.bool_)
    inside = crop_HW[max(0, -y0) : height - y0, max(0, -x0) : width - x0]
    mask_HW[max(0, y0) : max(0, y0) + inside.shape[0], max(0, x0) : max(0, x0) + inside.shape[1]] = inside
    return mask_HW
