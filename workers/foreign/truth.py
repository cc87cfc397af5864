"""Ground truth from files: COCO and LVIS annotations, a suite's manifest, BSDS's edge maps, given boxes.

Pictures are read one at a time, so a set may be larger than memory. Crowds become pixels that no figure holds
against an answer; masks without a pixel are left out.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskmill.pipeline.evaluate.truth import Boxes, Truth
from maskmill.pipeline.rle import Rle, decode
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.codec import DecodeError, decode_image

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TruthSet:
    """A set of pictures with true masks.

    Attributes:
        name: of the set.
        coco: annotations, COCO's or LVIS's JSON.
        images: the folder of the pictures.
        boxes: COCO results (image_id, category_id, bbox, score) of a detector, for AP with given boxes.
    """

    name: str
    coco: Path
    images: Path
    boxes: Path | None = None


@dataclass(frozen=True, eq=False)
class TruthIndex:
    """What a set's annotations say, before any picture is read.

    Attributes:
        images: image id -> its entry, in order of ids.
        annotations: image id -> its annotations.
        frequency: category id -> LVIS's "r", "c" or "f"; empty for COCO.
        boxes: image id -> given boxes; empty without a file of them.
        names: category id -> its name; empty where none is given.
    """

    source: TruthSet
    images: Mapping[int, Mapping[str, Any]]
    annotations: Mapping[int, Sequence[Mapping[str, Any]]]
    frequency: Mapping[int, str] = field(default_factory=dict)
    boxes: Mapping[int, Boxes] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)


def read_manifest(path: Path) -> list[TruthSet]:
    """The sets that a manifest names.

    Args:
        path: TOML with a table `[[set]]` each: name, coco, images, and perhaps boxes; paths are relative to
            the manifest's folder.

    Raises:
        InputError: no such file, no TOML, or a set without one of the three.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))["set"]
        here = path.parent
        return [
            TruthSet(
                str(one["name"]),
                here / one["coco"],
                here / one["images"],
                here / one["boxes"] if "boxes" in one else None,
            )
            for one in found
        ]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise InputError(f"manifest {path} cannot be read: {exc}") from exc
    except (KeyError, TypeError) as exc:
        raise InputError(
            f"manifest {path}: each [[set]] needs name, coco and images ({exc} is missing or no table)"
        ) from exc


def index_truth(source: TruthSet) -> TruthIndex:
    """Reads a set's annotations.

    Raises:
        InputError: a file that is missing, no JSON, without images, or with an annotation of no image.
    """
    data = _read_json(source.coco)
    try:
        images = {int(one["id"]): one for one in data["images"]}
        annotations: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for one in data["annotations"]:
            annotations[int(one["image_id"])].append(one)
        kinds = {int(one["id"]): str(one.get("frequency", "")) for one in data.get("categories", ())}
        names = {int(one["id"]): str(one["name"]) for one in data.get("categories", ()) if "name" in one}
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{source.coco}: not COCO annotations ({exc!r})") from exc
    strangers = sorted(annotations.keys() - images.keys())
    if strangers or not images:
        what = f"annotations of images {strangers[:3]} that it doesn't list" if strangers else "no images"
        raise InputError(f"{source.coco}: has {what}; use the annotations of {source.images}")
    return TruthIndex(
        source,
        dict(sorted(images.items())),
        annotations,
        {kind: letter for kind, letter in kinds.items() if letter},
        _given_boxes(source.boxes) if source.boxes else {},
        names,
    )


def file_name(entry: Mapping[str, Any]) -> str:
    """An image's file, as COCO and LVIS name it."""
    name = entry.get("file_name") or str(entry.get("coco_url", "")).rpartition("/")[2]
    if not name:
        raise InputError(f"image {entry.get('id')} has neither file_name nor coco_url")
    return str(name)


def read_truths(index: TruthIndex, image_ids: Sequence[int] | None = None) -> Iterator[tuple[int, Truth]]:
    """The pictures with their masks, in order of ids.

    Args:
        index: of the set.
        image_ids: only these; None is all.

    Raises:
        InputError: a picture that is missing, or of another size than its annotations say.
    """
    for image_id in index.images if image_ids is None else image_ids:
        entry = index.images[image_id]
        path = index.source.images / file_name(entry)
        try:
            image = decode_image(path.read_bytes())
        except (OSError, DecodeError) as exc:
            raise InputError(f"{path}: cannot be read ({exc}); is {index.source.images} right?") from exc
        height, width = image.shape[:2]
        if (height, width) != (int(entry["height"]), int(entry["width"])):
            raise InputError(
                f"{path}: is {width}x{height} px, but {index.source.coco} says "
                f"{entry['width']}x{entry['height']}"
            )
        yield image_id, truth_of(index, image_id, image)


def truth_of(index: TruthIndex, image_id: int, image: NDArray[np.uint8]) -> Truth:
    """The true masks of a decoded picture, brought to its size where it was scaled.

    Raises:
        InputError: a mask that isn't readable.
    """
    entry = index.images[image_id]
    masks, categories, frequency = [], [], []
    crowd_HW: Bools | None = None
    for one in index.annotations.get(image_id, ()):
        mask_HW = fitted(_mask(one, entry, index.source.coco), image.shape[:2])
        if one.get("iscrowd"):
            crowd_HW = mask_HW if crowd_HW is None else crowd_HW | mask_HW
        elif mask_HW.any():
            masks.append(mask_HW)
            categories.append(int(one.get("category_id", 1)))
            frequency.append(index.frequency.get(categories[-1], ""))
    stacked = np.stack(masks) if masks else np.zeros((0, *image.shape[:2]), np.bool_)
    known = tuple(frequency) if index.frequency else ()
    return Truth(file_name(entry), image, stacked, tuple(categories), crowd_HW, known)


def fitted(mask_HW: Bools, size: tuple[int, int]) -> Bools:
    """A mask at another size, nearest pixel; itself where it fits."""
    if mask_HW.shape == size:
        return mask_HW
    rows = ((np.arange(size[0]) + 0.5) * mask_HW.shape[0] / size[0]).astype(int)
    cols = ((np.arange(size[1]) + 0.5) * mask_HW.shape[1] / size[1]).astype(int)
    return mask_HW[np.ix_(rows, cols)]


def read_bsds(images: Path, truth: Path) -> Iterator[tuple[str, NDArray[np.uint8], list[Bools]]]:
    """Pictures of BSDS500 with each annotator's edge map.

    Args:
        images: folder of <name>.jpg.
        truth: folder of <name>.mat, MATLAB's files with `groundTruth{k}.Boundaries`.

    Raises:
        InputError: no .mat there, one without boundaries, or one whose picture is missing.
    """
    from scipy.io import loadmat

    files = sorted(truth.glob("*.mat"))
    if not files:
        raise InputError(f"{truth}: holds no .mat file; give BSDS500's groundTruth folder of one split")
    for path in files:
        try:
            cells = loadmat(path)["groundTruth"].ravel()
            maps = [np.asarray(cell["Boundaries"][0, 0]) > 0 for cell in cells]
        except (KeyError, ValueError, IndexError, OSError, NotImplementedError) as exc:
            raise InputError(f"{path}: has no groundTruth with Boundaries ({exc})") from exc
        picture = next(
            (
                images / f"{path.stem}{end}"
                for end in (".jpg", ".png")
                if (images / f"{path.stem}{end}").is_file()
            ),
            None,
        )
        if picture is None:
            raise InputError(f"{images}: holds no {path.stem}.jpg for {path.name}")
        yield path.stem, decode_image(picture.read_bytes()), maps


def _given_boxes(path: Path) -> dict[int, Boxes]:
    rows: dict[int, list[tuple[list[float], float, int]]] = defaultdict(list)
    try:
        for one in _read_json(path):
            x, y, width, height = (float(side) for side in one["bbox"])
            box = [x, y, x + width, y + height]
            rows[int(one["image_id"])].append((box, float(one["score"]), int(one["category_id"])))
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{path}: not COCO results with bbox, score and category_id ({exc!r})") from exc
    return {
        image_id: Boxes(
            np.array([box for box, _, _ in some]),
            np.array([score for _, score, _ in some]),
            tuple(kind for _, _, kind in some),
        )
        for image_id, some in rows.items()
    }


def _mask(one: Mapping[str, Any], entry: Mapping[str, Any], where: Path) -> Bools:
    height, width = int(entry["height"]), int(entry["width"])
    shape = one.get("segmentation")
    try:
        if isinstance(shape, list) and shape:
            shape = coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
        decoded = decode(Rle.from_coco(shape)) if shape else np.zeros((height, width), np.bool_)
    except (ValueError, TypeError, KeyError, IndexError) as exc:
        raise InputError(f"{where}: annotation {one.get('id')} has no readable mask ({exc})") from exc
    if decoded.shape != (height, width):
        raise InputError(
            f"{where}: annotation {one.get('id')} has a mask of {decoded.shape}, its image {(height, width)}"
        )
    return decoded


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{path}: cannot be read: {exc}") from exc
    except ValueError as exc:
        raise InputError(f"{path}: is no JSON: {exc}") from exc


def picture_sha256s(coco: Path, images: Path) -> dict[str, str]:
    """The sha256 of each picture that annotations list, by file name.

    Raises:
        InputError: a picture that is missing.
    """
    index = index_truth(TruthSet(coco.stem, coco, images))
    found = {}
    for entry in index.images.values():
        path = images / file_name(entry)
        try:
            found[file_name(entry)] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as exc:
            raise InputError(f"{path}: cannot be read ({exc}); is {images} right?") from exc
    return found
