"""Ground truth from files: COCO and LVIS annotations, a suite's manifest, given boxes.

Pictures are read one at a time, so a set may be larger than memory. Crowds become pixels that no figure holds
against an answer. An annotation that is no true mask (a box alone, a broken shape, no pixel) is left out and
counted by reason; the picture's others stand.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.evaluate.truth import Boxes, Truth
from maskmill.pipeline.phash import picture_hash
from maskmill.pipeline.rle import decode
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.annotations import BadAnnotation, ForeignImage, ForeignSet, Id, Tally, score_of
from maskmill.workers.foreign.coco import id_of, read_bytes, read_coco
from maskmill.workers.foreign.images.codec import DecodeError, decode_image
from maskmill.workers.foreign.json_words import load_list
from maskmill.workers.foreign.matching import Matching, Picture, match, parts_of
from maskmill.workers.foreign.shapes import box_xywh, fitted, shape_of

Bools = NDArray[np.bool_]

NO_CATEGORY = -1
"""Of a detector's box whose kind the annotations don't know."""


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
        images: by image id, in order of ids.
        number: category id -> the number that stands for it: itself, or one of its own for a word.
        frequency: category number -> LVIS's "r", "c" or "f"; empty for COCO.
        boxes: image id -> given boxes; empty without a file of them.
        names: category number -> its name; empty where none is given.
        left_out: annotations that are no true masks, by reason: counted as they are met.
        sha256: of the annotations.
    """

    source: TruthSet
    sha256: str
    images: Mapping[Id, ForeignImage]
    number: Mapping[Id, int] = field(default_factory=dict)
    frequency: Mapping[int, str] = field(default_factory=dict)
    boxes: Mapping[Id, Boxes] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    left_out: Tally = field(default_factory=Tally)

    @cached_property
    def ids(self) -> list[Id]:
        """Of the images, in order: places in it are what `match` gives."""
        return list(self.images)

    def match(self, pictures: Iterable[Picture]) -> Matching:
        """Which of the dataset's pictures its images are, by the one rule."""
        return match([image.named for image in self.images.values()], pictures)

    def id_of(self, matching: Matching, key: str) -> Id | None:
        """The image that is a picture of the dataset; None where none is, or nobody can say."""
        place = matching.entry_of.get(key)
        return None if place is None else self.ids[place]


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
    except (OSError, ValueError, RecursionError) as exc:
        raise InputError(f"manifest {path} cannot be read: {exc}") from exc
    except (KeyError, TypeError) as exc:
        raise InputError(
            f"manifest {path}: each [[set]] needs name, coco and images ({exc} is missing or no table)"
        ) from exc


def index_truth(source: TruthSet) -> TruthIndex:
    """Reads a set's annotations.

    Raises:
        InputError: a file that is missing or none of COCO's, without images, or whose annotations are all of
            images that it doesn't list.
    """
    given = read_coco(source.coco)
    strangers = given.left_out.counts.get("unknown_image", 0)
    if strangers and strangers == given.num_annotations:
        raise InputError(
            f"{source.coco}: all its annotations are of images that it doesn't list "
            f"({', '.join(given.left_out.first['unknown_image'])}); use the annotations of {source.images}"
        )

    images = {image.id: image for image in sorted(given.images, key=lambda image: _in_order(image.id))}
    number = _numbers(given)
    kinds = {number[id_]: kind for id_, kind in given.categories.items()}
    left_out = Tally(given.left_out)

    return TruthIndex(
        source,
        given.sha256,
        images,
        number,
        {kind: one.frequency for kind, one in kinds.items() if one.frequency},
        _given_boxes(source.boxes, number, left_out) if source.boxes else {},
        {kind: one.name for kind, one in kinds.items() if one.name is not None},
        left_out,
    )


def read_truths(index: TruthIndex, image_ids: Sequence[Id] | None = None) -> Iterator[tuple[Id, Truth]]:
    """The pictures with their masks, in order of ids.

    Args:
        index: of the set.
        image_ids: only these; None is all.

    Raises:
        InputError: a picture that is missing, or of another size than its annotations say.
    """
    wanted = index.ids if image_ids is None else image_ids
    for image_id, path in picture_paths(index, wanted):
        entry = index.images[image_id]
        try:
            image = decode_image(path.read_bytes())
        except (OSError, DecodeError) as exc:
            raise InputError(f"{path}: cannot be read ({exc}); is {index.source.images} right?") from exc
        height, width = image.shape[:2]
        if (entry.height or height, entry.width or width) != (height, width):
            raise InputError(
                f"{path}: is {width}x{height} px, but {index.source.coco} says {entry.width}x{entry.height}"
            )
        yield image_id, truth_of(index, image_id, image)


def picture_paths(index: TruthIndex, image_ids: Sequence[Id]) -> Iterator[tuple[Id, Path]]:
    """Where the pictures of images lie: as they are named under the set's folder, else by the one rule.

    Args:
        index: of the set.
        image_ids: of it.

    Raises:
        InputError: a name that fits no file of the folder, or several.
    """
    found: dict[Id, Path] | None = None
    for image_id in image_ids:
        parts = parts_of(index.images[image_id].named.file_name)
        path = index.source.images.joinpath(*parts)
        if not path.is_file():
            found = _listed(index) if found is None else found
            if image_id not in found:
                raise InputError(
                    f"{path}: cannot be read (no such file, or its name fits several); is "
                    f"{index.source.images} right?"
                )
            path = found[image_id]
        yield image_id, path


def truth_of(index: TruthIndex, image_id: Id, image: NDArray[np.uint8]) -> Truth:
    """The true masks of a decoded picture, brought to its size where it was scaled.

    Annotations that are no true masks are left out, and counted in `index.left_out`.
    """
    entry = index.images[image_id]
    height, width = image.shape[:2]
    masks, categories, frequency = [], [], []
    crowd_HW: Bools | None = None

    # Masks, and crowds apart
    for one in entry.annotations:
        try:
            shape = shape_of(one.words, entry.height or height, entry.width or width, boxes=one.crowd)
        except BadAnnotation as exc:
            index.left_out.add(exc.reason, one.name)
            continue
        mask_HW = decode(fitted(shape.rle, height, width))
        if one.crowd:
            crowd_HW = mask_HW if crowd_HW is None else crowd_HW | mask_HW
        elif mask_HW.any():
            masks.append(mask_HW)
            categories.append(1 if one.category is None else index.number[one.category])
            frequency.append(index.frequency.get(categories[-1], ""))
        else:
            index.left_out.add("empty_mask", one.name)

    stacked = np.stack(masks) if masks else np.zeros((0, height, width), np.bool_)
    known = tuple(frequency) if index.frequency else ()
    return Truth(entry.named.file_name, image, stacked, tuple(categories), crowd_HW, known)


def picture_prints(coco: Path, images: Path) -> dict[str, tuple[str, str | None]]:
    """What tells the pictures that annotations list from others: sha256 and perceptual hash by file name.

    Raises:
        InputError: a picture that is missing or cannot be decoded.
    """
    index = index_truth(TruthSet(coco.stem, coco, images))
    found = {}
    for image_id, path in picture_paths(index, index.ids):
        try:
            data = path.read_bytes()
            pixels = decode_image(data)
        except (OSError, DecodeError) as exc:
            raise InputError(f"{path}: cannot be read ({exc}); is {images} right?") from exc
        name = index.images[image_id].named.file_name
        found[name] = hashlib.sha256(data).hexdigest(), picture_hash(pixels)
    return found


def _in_order(id_: Id) -> tuple[bool, int, str]:
    """Numbers first, then words."""
    return (False, id_, "") if isinstance(id_, int) else (True, 0, id_)


def _numbers(given: ForeignSet) -> dict[Id, int]:
    """A number for each category: its own, or for words the next ones that are free."""
    of_annotations = (one.category for image in given.images for one in image.annotations)
    ids = {one for one in (*given.categories, *of_annotations) if one is not None}
    numbers: dict[Id, int] = {id_: id_ for id_ in ids if isinstance(id_, int)}
    words = sorted(id_ for id_ in ids if isinstance(id_, str))
    free = max(numbers.values(), default=0) + 1
    return {**numbers, **{word: free + place for place, word in enumerate(words)}}


def _listed(index: TruthIndex) -> dict[Id, Path]:
    """The files of a set's folder by the id of the image that each is."""
    files = {str(place): path for place, path in enumerate(sorted(index.source.images.rglob("*")))}
    matching = index.match(
        Picture(key, str(path.absolute())) for key, path in files.items() if path.is_file()
    )
    return {index.ids[place]: files[key] for key, place in matching.entry_of.items()}


def _given_boxes(path: Path, number: Mapping[Id, int], left_out: Tally) -> dict[Id, Boxes]:
    """A detector's results by image; a bad box is left out. Raises InputError."""
    found = load_list(read_bytes(path), str(path), "COCO results")
    rows: dict[Id, list[tuple[list[float], float, int]]] = defaultdict(list)
    for place, one in enumerate(found):
        try:
            image_id, kind = id_of(one["image_id"]), id_of(one["category_id"])
            if image_id is None or kind is None or one["score"] is None:
                raise ValueError("an image_id, category_id or score that is none")
            x, y, width, height = box_xywh(one["bbox"], None, None)
            box = [x, y, x + width, y + height]
            own = kind if isinstance(kind, int) else NO_CATEGORY
            rows[image_id].append((box, score_of(one, "score"), number.get(kind, own)))
        except (KeyError, TypeError, ValueError) as exc:
            raise InputError(f"{path}: not COCO results with bbox, score and category_id ({exc!r})") from exc
        except BadAnnotation as exc:
            left_out.add(exc.reason, f"box at place {place} of {path.name}")

    return {
        image_id: Boxes(
            np.array([box for box, _, _ in some]),
            np.array([score for _, score, _ in some]),
            tuple(kind for _, _, kind in some),
        )
        for image_id, some in rows.items()
    }
