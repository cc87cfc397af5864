"""Annotations that others made, taken in as a column: COCO or SA-1B, fitted to the dataset's images by name.

How it works: every annotation becomes an SA-1B record's (run lengths, inclusive box, area), so that readers,
exports and comparisons treat it as masks; what the file said is kept beside it, word for word, under
`original`, so that a COCO file that is exported again is equal to the one that came in. Images that were
scaled when they were taken in get their masks scaled; what cannot be fitted is rejected with a reason.

A run of this is a run of any stage: a column version with a fingerprint (over the file's sha256), shards,
commit records; it resumes, and does nothing twice.

What it doesn't know: scores. `predicted_iou` and `stability_score` are 1 where the file has none.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE
from maskmill.pipeline.rle import Rle, area_px, box_xyxy, decode, encode_mask
from maskmill.storage.errors import InputError
from maskmill.storage.shards.shards import Sample
from maskmill.workers.foreign.codec import DecodeError
from maskmill.workers.stages.build import EncodedSample, Picture, StageResult

FORMATS = ("coco", "sa1b")
REVISION = 1


@dataclass(frozen=True)
class GivenImage:
    """What a file says of one image.

    Attributes:
        name: of its file, as the annotations name it.
        width, height: in px, of the annotations.
        entry: the image's own words.
        annotations: the annotations' own words.
    """

    name: str
    width: int
    height: int
    entry: Mapping[str, Any]
    annotations: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class GivenSet:
    """All that was given.

    Attributes:
        format: one of `FORMATS`.
        sha256: over the files.
        images: by file name, without folders; several where folders tell them apart.
        head: the rest of a COCO file: info, licenses, categories.
    """

    format: str
    sha256: str
    images: Mapping[str, Sequence[GivenImage]]
    head: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        """Images that are named."""
        return sum(len(found) for found in self.images.values())


def read_given(paths: Sequence[Path], format: str) -> GivenSet:
    """Reads annotation files whole.

    Args:
        paths: of COCO, one JSON; of SA-1B, JSON files, folders of them, or tars.
        format: "coco" or "sa1b".

    Raises:
        InputError: a file is missing, or not of this format.
    """
    if format == "coco":
        if len(paths) != 1:
            raise InputError(f"COCO annotations are one JSON file, not {len(paths)}")
        return _read_coco(paths[0])
    if format != "sa1b":
        raise InputError(f"format={format!r} is unknown: use one of {', '.join(FORMATS)}")
    return _read_sa1b(paths)


def _read_coco(path: Path) -> GivenSet:
    data = _bytes_of(path)
    try:
        content = json.loads(data)
        of_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            of_image[int(annotation["image_id"])].append(annotation)
        images = [
            GivenImage(
                str(entry["file_name"]),
                int(entry["width"]),
                int(entry["height"]),
                entry,
                tuple(of_image.get(int(entry["id"]), ())),
            )
            for entry in content["images"]
        ]
    except (ValueError, KeyError, TypeError) as exc:
        raise InputError(f"{path}: not a COCO annotations file ({exc!r})") from exc
    head = {name: value for name, value in content.items() if name not in ("images", "annotations")}
    return GivenSet("coco", hashlib.sha256(data).hexdigest(), _by_name(images), head)


def _read_sa1b(paths: Sequence[Path]) -> GivenSet:
    images, sha256 = [], hashlib.sha256()
    for name, data in _sa1b_files(paths):
        sha256.update(hashlib.sha256(data).digest())
        try:
            record = json.loads(data)
            info = record["image"]
            images.append(
                GivenImage(
                    str(info["file_name"]),
                    int(info["width"]),
                    int(info["height"]),
                    info,
                    tuple(record["annotations"]),
                )
            )
        except (ValueError, KeyError, TypeError) as exc:
            raise InputError(f"{name}: not an SA-1B record ({exc!r})") from exc
    if not images:
        raise InputError(f"{', '.join(map(str, paths))}: no SA-1B records (.json) in it")
    return GivenSet("sa1b", sha256.hexdigest(), _by_name(images))


def _sa1b_files(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix in (".json", ".tar")]
            yield from _sa1b_files([p for p in inside if not p.name.startswith("export")])
        elif path.suffix == ".tar":
            try:
                with tarfile.open(path) as tar:
                    for member in tar:
                        content = tar.extractfile(member) if member.name.endswith(".json") else None
                        if content is not None:
                            yield f"{path}::{member.name}", content.read()
            except (OSError, tarfile.TarError) as exc:
                raise InputError(f"{path}: cannot be read ({exc})") from exc
        else:
            yield str(path), _bytes_of(path)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read ({exc.strerror})") from exc


def _by_name(images: Sequence[GivenImage]) -> dict[str, list[GivenImage]]:
    found: dict[str, list[GivenImage]] = defaultdict(list)
    for image in images:
        found[image.name.rpartition("/")[2]].append(image)
    return dict(found)


class GivenMasks:
    """The stage: what was given for each picture, as an SA-1B record."""

    has_index = False
    reads: tuple[str, ...] = ()

    def __init__(self, given: GivenSet, *, column: str, fingerprint: str) -> None:
        self._given = given
        self.column = column
        self.fingerprint = fingerprint
        self.models: Mapping[str, str] = {column: f"{given.format} sha256:{given.sha256}"}

    def prepare(self) -> None:
        """See `Stage.prepare`: there is no model."""

    def decode(self, files: Mapping[str, bytes]) -> object:
        """See `Stage.decode`."""
        return json.loads(files["json"])

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`. A picture that the files don't know raises DecodeError: its reject."""
        return [self._run_one(picture) for picture in pictures]

    def _run_one(self, picture: Picture) -> StageResult:
        image = self._find(picture)
        record = to_record(image, picture)
        return StageResult(partial(_encode, picture.key, record), output=record)

    def _find(self, picture: Picture) -> GivenImage:
        """By file name; where several share it, by as much of the path as they give."""
        place = picture.source.replace("::", "/")
        named = self._given.images.get(place.rpartition("/")[2], ())
        fitting = [image for image in named if f"/{place}".endswith(f"/{image.name}")] or list(named)
        fitting += [image for image in self._own(picture) if not fitting]
        if not fitting:
            raise DecodeError("not_annotated", f"{picture.source}: the given annotations do not name it")
        if len(fitting) > 1:
            names = ", ".join(image.name for image in fitting[:3])
            raise DecodeError("ambiguous", f"{picture.source}: could be any of {names}")
        return fitting[0]

    def _own(self, picture: Picture) -> list[GivenImage]:
        """Exports of maskmill name images by id, and say the source."""
        named = self._given.images.get(f"sa_{picture.image_id}.jpg", ())
        return [image for image in named if image.entry.get("source") == picture.source]


def to_record(image: GivenImage, picture: Picture) -> dict[str, Any]:
    """The SA-1B record of a given image, fitted to the stored picture.

    Raises:
        DecodeError: the sizes don't fit, or a segmentation cannot be read.
    """
    height, width = picture.pixels_HWC.shape[:2]
    if abs(image.width * height - image.height * width) > max(image.width, image.height, width, height):
        raise DecodeError(
            "size_differs",
            f"{image.name}: annotated at {image.width} x {image.height}, stored at {width} x {height} px",
        )
    first_id = picture.image_id * ANNOTATION_IDS_PER_IMAGE
    rows = []
    for place, annotation in enumerate(image.annotations):
        try:
            rle = _fitted(_rle_of(annotation, image), height, width)
        except (ValueError, KeyError, TypeError, IndexError) as exc:
            raise DecodeError("bad_segmentation", f"{image.name}, annotation {place}: {exc!r}") from exc
        x0, y0, x1, y1 = box_xyxy(rle)
        rows.append(
            {
                "id": first_id + place,
                "segmentation": rle.to_coco(),
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "area": area_px(rle),
                "predicted_iou": float(annotation.get("predicted_iou", annotation.get("score", 1.0))),
                "stability_score": float(annotation.get("stability_score", 1.0)),
                "crop_box": [0.0, 0.0, float(width), float(height)],
                "point_coords": annotation.get("point_coords", []),
                "output_token": annotation.get("output_token"),
                "parent": None,
                "original": dict(annotation),
            }
        )
    info = {"image_id": picture.image_id, "width": width, "height": height}
    entry = {**info, "file_name": f"{picture.key}.jpg", "original": dict(image.entry)}
    return {"image": entry, "annotations": rows}


def _rle_of(annotation: Mapping[str, Any], image: GivenImage) -> Rle:
    """Polygons, run lengths or compressed run lengths; an annotation with a box alone is its box."""
    found = annotation.get("segmentation")
    size = (image.height, image.width)
    if isinstance(found, list) and found:
        merged = coco_mask.merge(coco_mask.frPyObjects(found, *size))
        return Rle(*size, merged["counts"])
    if isinstance(found, Mapping):
        rle = Rle.from_coco(found)
        if (rle.height, rle.width) != size:
            raise ValueError(f"its mask is {rle.height} x {rle.width}, its image {size[0]} x {size[1]}")
        return rle
    box = coco_mask.frPyObjects([[float(value) for value in annotation["bbox"]]], *size)[0]
    return Rle(*size, box["counts"])


def _fitted(rle: Rle, height: int, width: int) -> Rle:
    """The mask at the stored picture's size: nearest pixels."""
    if (rle.height, rle.width) == (height, width):
        return rle
    image = Image.fromarray(decode(rle).astype(np.uint8))
    return encode_mask(np.asarray(image.resize((width, height), Image.Resampling.NEAREST)).astype(bool))


def _encode(key: str, record: Mapping[str, Any]) -> EncodedSample:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return EncodedSample(Sample(key, {"json": text.encode()}), num_masks=len(record["annotations"]))
