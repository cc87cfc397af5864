"""The one reader of COCO's JSON (and LVIS's): a file to a `ForeignSet`, its ids checked.

Ids may be numbers or words; "7" and 7 are one id. An image id that stands for two images makes the file
useless, since nobody can say whose the annotations are: it is refused by name. An annotation of an image that
the file doesn't list, or that is no object at all, is left out and counted; shapes and scores are looked at
by whoever uses them (shapes.py), so that reading a large file stays quick.

What it doesn't know: detections as a bare list (truth.py), pictures.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskmill.pipeline.rle import MAX_PIXELS
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.annotations import (
    ForeignAnnotation,
    ForeignCategory,
    ForeignImage,
    ForeignSet,
    Id,
    Tally,
    finite,
)
from maskmill.workers.foreign.json_words import load_json, plain, printable, shown
from maskmill.workers.foreign.matching import ForeignName

FORMAT = "coco"


def read_coco(path: Path) -> ForeignSet:
    """Reads a file.

    Raises:
        InputError: as `parse_coco`, or a file that cannot be read.
    """
    return parse_coco(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """A file whole. Raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read ({exc.strerror})") from exc


def parse_coco(data: bytes, where: str) -> ForeignSet:
    """Reads a file's bytes.

    Args:
        data: of the file.
        where: it lies, for people.

    Raises:
        InputError: no JSON, not COCO's shape, an image id or a category id that stands for two, or no image
            that can be used.
    """
    content = load_json(data, where, "a COCO annotations file")
    images, annotations = (_list_of(content, name, where) for name in ("images", "annotations"))
    categories = content.get("categories")
    kinds = _categories(categories if isinstance(categories, list) else [], where)

    images_left_out, left_out = Tally(), Tally()
    entries = _entries(images, images_left_out)
    _refuse_repeated(entries, where)
    if not entries:
        raise InputError(f"{where}: has no images with an id and a file_name; use a file that lists them")
    of_image = _by_image(annotations, {id_ for id_, _ in entries}, left_out)

    return ForeignSet(
        format=FORMAT,
        where=where,
        sha256=hashlib.sha256(data).hexdigest(),
        images=tuple(_image(id_, entry, of_image.get(id_, ())) for id_, entry in entries),
        num_annotations=len(annotations),
        categories=kinds,
        head={name: plain(value) for name, value in content.items() if name not in ("images", "annotations")},
        left_out=left_out.left_out(),
        images_left_out=images_left_out.left_out(),
    )


def id_of(value: object) -> Id | None:
    """An id in the one form that is compared: a whole number, or a word; None for what is neither.

    A word that is exactly a whole number's own writing is that number.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        digits = value.removeprefix("-")
        written = digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(value)) == value
        return int(value) if written else value
    return None


def annotation_of(words: Mapping[str, Any], place: int) -> ForeignAnnotation:
    """An annotation as it stands in a file's list, at `place`."""
    id_ = id_of(words.get("id"))
    name = f"annotation at place {place}" if id_ is None else f"annotation {printable(str(id_))}"
    return ForeignAnnotation(name, id_, id_of(words.get("category_id")), bool(words.get("iscrowd")), words)


def sides_of(words: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Width and height in px, None each where not said.

    Raises:
        ValueError: what no picture has.
    """
    sides = []
    for name in ("width", "height"):
        found = words.get(name)
        side = finite(found) if found is not None else 0.0
        if side is None or side < 0 or side > MAX_PIXELS or side != int(side):
            raise ValueError(f"its {name} is {shown(found)}")
        sides.append(int(side) or None)
    width, height = sides
    if (width or 1) * (height or 1) > MAX_PIXELS:
        raise ValueError(f"it is {width} x {height} px, at most {MAX_PIXELS} pixels are an image")
    return width, height


def _list_of(content: Mapping[str, Any], name: str, where: str) -> Sequence[Any]:
    found = content.get(name)
    if not isinstance(found, list):
        raise InputError(
            f"{where}: not a COCO annotations file (it has no list {name!r}{_other_format(content)})"
        )
    return found


def _other_format(content: Mapping[str, Any]) -> str:
    """Whose file it looks like, and what to do; "" where nothing tells."""
    kinds = {
        "LabelMe's": {"shapes", "imagePath"} <= content.keys(),
        "GeoJSON": content.get("type") == "FeatureCollection",
        "VIA's": any(isinstance(one, Mapping) and "regions" in one for one in content.values()),
    }
    named = next((name for name, is_it in kinds.items() if is_it), None)
    return f"; it looks like {named}: convert it to COCO first" if named else ""


def _categories(found: Sequence[Any], where: str) -> dict[Id, ForeignCategory]:
    """Categories that have an id; one id for two names is refused: nobody knows which is meant."""
    kinds: dict[Id, ForeignCategory] = {}
    for entry in found:
        id_ = id_of(entry.get("id")) if isinstance(entry, Mapping) else None
        if id_ is None:
            continue
        name = entry.get("name")
        kind = ForeignCategory(None if name is None else plain(str(name)), str(entry.get("frequency") or ""))
        if kinds.setdefault(id_, kind).name != kind.name:
            raise InputError(
                f"{where}: category id {printable(str(id_))} stands for {kinds[id_].name!r} and "
                f"{kind.name!r}; give every category an id of its own"
            )
    return kinds


def _entries(found: Sequence[Any], left_out: Tally) -> list[tuple[Id, Mapping[str, Any]]]:
    """The image entries that can be used, by id."""
    entries: list[tuple[Id, Mapping[str, Any]]] = []
    for place, entry in enumerate(found):
        id_ = id_of(entry.get("id")) if isinstance(entry, Mapping) else None
        if id_ is None:
            left_out.add("no_image_id", f"image at place {place}")
            continue
        try:
            sides_of(entry)
        except ValueError:
            left_out.add("bad_image_size", f"image {printable(str(id_))}")
            continue
        if file_name_of(entry):
            entries.append((id_, entry))
        else:
            left_out.add("no_file_name", f"image {printable(str(id_))}")
    return entries


def _refuse_repeated(entries: Sequence[tuple[Id, Mapping[str, Any]]], where: str) -> None:
    repeated = sorted(
        (str(id_) for id_, times in Counter(id_ for id_, _ in entries).items() if times > 1),
        key=lambda text: (len(text), text),
    )
    if repeated:
        few = ", ".join(map(printable, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
        raise InputError(
            f"{where}: {len(repeated)} image ids stand for several images ({few}), so nobody can say whose "
            "their annotations are; give every image an id of its own (files put together need new ids)"
        )


def _by_image(found: Sequence[Any], known: set[Id], left_out: Tally) -> dict[Id, list[ForeignAnnotation]]:
    of_image: dict[Id, list[ForeignAnnotation]] = defaultdict(list)
    for place, words in enumerate(found):
        if not isinstance(words, Mapping):
            left_out.add("not_an_object", f"annotation at place {place}")
            continue
        annotation = annotation_of(words, place)
        image_id = id_of(words.get("image_id"))
        if image_id is None or image_id not in known:
            left_out.add("unknown_image", annotation.name)
        else:
            of_image[image_id].append(annotation)
    return of_image


def _image(id_: Id, words: Mapping[str, Any], annotations: Sequence[ForeignAnnotation]) -> ForeignImage:
    source = words.get("source")
    named = ForeignName(file_name_of(words), source if isinstance(source, str) else None)
    return ForeignImage(id_, named, *sides_of(words), words, tuple(annotations))


def file_name_of(words: Mapping[str, Any]) -> str:
    """An image's file name, as COCO and LVIS give it; empty where they don't."""
    name = words.get("file_name")
    if not isinstance(name, str) or not name:
        address = words.get("coco_url")
        name = address.rpartition("/")[2] if isinstance(address, str) else ""
    return name
