"""JSON of others is written again as JSON."""

from __future__ import annotations

import gzip
import json
import zipfile
from io import BytesIO
from typing import Any

import pytest

from maskmill.storage.errors import InputError
from maskmill.workers.foreign.coco import parse_coco
from maskmill.workers.foreign.json_words import dump_json, load_json, printable, shown


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_hold_is_replaced(value: Any) -> None:
    found = json.loads(dump_json({"a": [value, 1]}), parse_constant=pytest.fail)
    assert found in ({"a": [None, 1]}, {"a": ["\ufffd", 1]})


def test_values_and_names_are_shown_short_and_harmless() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert shown(deep) == "a list of 1" and len(shown("x" * 900)) < 50
    assert printable("a\x1b[2Jé") == "a\ufffd[2Jé" and len(printable("x" * 9000)) < 310


def zipped(data: bytes) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("annotations.json", data)
    return out.getvalue()


WHOLE = b'{"images": [], "annotations": []}'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (gzip.compress(WHOLE), "packed by gzip: unpack it first"),
        (zipped(WHOLE), "a zip archive: unpack it first"),
        (b"<?xml version='1.0'?><annotation/>", "it is XML: convert"),
        (b"\n  <annotations>", "it is XML: convert"),
        (b"", "it is empty"),
        (b" \n\t", "it is empty"),
        (WHOLE + b"\n" + WHOLE, "more than one JSON text"),
        (WHOLE[:-12], "ends in the middle, after"),
        (b'{"images": [{"id": 1, "file_name": "a.j', "ends in the middle, after 39"),
        (b'{"images": [', "ends in the middle, after"),
        (b"0 0.1 0.2 0.3", "it is no JSON: Extra data"),
        (b"[]", "no JSON object)"),
        (b'[{"image_id": 1, "segmentation": []}]', 'under "annotations" beside the "images"'),
    ],
)
def test_what_is_no_object_says_what_it_is_and_what_to_do(data: bytes, told: str) -> None:
    with pytest.raises(InputError, match=r"x\.json: not a thing") as error:
        load_json(data, "x.json", "a thing")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"shapes": [], "imagePath": "a.jpg"}, "LabelMe's"),
        ({"type": "FeatureCollection", "features": []}, "GeoJSON"),
        ({"a.jpg123": {"filename": "a.jpg", "regions": []}}, "VIA's"),
    ],
)
def test_files_of_other_tools_are_named(content: Any, told: str) -> None:
    with pytest.raises(InputError, match=f"looks like {told}: convert it to COCO"):
        parse_coco(json.dumps(content).encode(), "x.json")
