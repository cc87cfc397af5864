"""Files that are broken anywhere: an import neither falls nor loses count, whatever a value was made into."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pytest

from maskmill.storage.errors import InputError
from maskmill.workers.foreign.annotations import LeftOut
from maskmill.workers.foreign.coco import parse_coco
from maskmill.workers.foreign.images.codec import DecodeError
from maskmill.workers.foreign.json_words import dump_json
from maskmill.workers.stages.base import Picture
from maskmill.workers.stages.masks.given import left_out_of, to_record

POLYGON = [[5.0, 5.0, 30.0, 5.0, 30.0, 20.0, 5.0, 20.0], [40, 10, 50, 10, 50, 30]]
RUNS = {"size": [48, 64], "counts": [10, 50, 3012]}
WRONG: list[Any] = [
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**300, -0.5, 1e9, 1e308, float("nan"), float("inf"), "", "7",
    "x", "\ud800", "nan", "z" * 60,
    [], [[]], [[[1, 2]]], [1], [1, 2, 3, 4], [float("nan")] * 6, {}, {"size": 1},
    {"size": [48, 64], "counts": "0"}, {"size": [48, 64], "counts": [1e300]}, [0, 0, 1e9, 0, 1e9, 1e9],
]  # fmt: skip


def good() -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"segmentation": POLYGON, "bbox": [5, 5, 25, 15], "score": 0.5, "point_coords": [[1, 2]]},
        {"segmentation": RUNS, "predicted_iou": 0.9, "stability_score": 0.8, "iscrowd": 1, "output_token": 1},
        {"segmentation": [], "bbox": [10, 10, 30, 20]},
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2)]
    annotations = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 1, **row} for n, row in enumerate(rows * 2)
    ]
    categories = [{"id": 1, "name": "thing"}, {"id": 2, "name": "stuff"}]
    file = {"info": {"year": 2025}, "images": images, "annotations": annotations, "categories": categories}
    return copy.deepcopy(file)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in places(item, (*path, key)))]


def broken(draw: random.Random) -> dict[str, Any]:
    """A good file with one to three values changed, removed or doubled."""
    file = good()
    for _ in range(draw.randint(1, 3)):
        *way, last = draw.choice(places(file)[1:])
        holder: Any = file
        for step in way:
            holder = holder[step]
        kind = draw.random()
        if kind < 0.15:
            del holder[last]
        elif kind < 0.25 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        else:
            holder[last] = copy.deepcopy(draw.choice(WRONG))
    return file


def taken_in(data: bytes) -> tuple[int, int, LeftOut]:
    """Masks and annotations left out of all records, as an import of all images makes them."""
    given = parse_coco(data, "there.json")
    masks = left_out = lost = 0
    for number, image in enumerate(given.images):
        picture = Picture(
            key=f"{number:09d}",
            image_id=number,
            pixels_HWC=np.zeros((48, 64, 3), np.uint8),
            caption=None,
            source="",
        )
        try:
            record = to_record(image, picture)
        except DecodeError:
            lost += len(image.annotations)
            continue
        json.loads(dump_json(record), parse_constant=pytest.fail)
        masks += len(record["annotations"])
        left_out += left_out_of(record).num
    assert masks + left_out + lost + given.left_out.num == given.num_annotations
    dump_json({"head": given.head})
    return masks, given.num_annotations, given.left_out


def test_broken_files_are_refused_or_counted() -> None:
    draw = random.Random(11)
    outcomes = {"refused": 0, "less": 0, "whole": 0}
    for _ in range(1500):
        try:
            masks, read, _ = taken_in(json.dumps(broken(draw)).encode())
        except InputError:
            outcomes["refused"] += 1
        else:
            outcomes["whole" if masks == read else "less"] += 1
    assert min(outcomes.values()) > 30, outcomes


def test_the_good_file_is_taken_whole() -> None:
    assert taken_in(json.dumps(good()).encode())[:2] == (6, 6)
