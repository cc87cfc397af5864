"""The reader of COCO: its ids, what it leaves out, and that nothing is lost uncounted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maskmill.storage.errors import InputError
from maskmill.workers.foreign.coco import id_of, parse_coco
from maskmill.workers.foreign.sa1b import read_sa1b


def image(id_: object, name: object = "a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": id_, "file_name": name, "width": 60, "height": 40, **more}


def parse(images: list[Any], annotations: list[Any], **more: Any) -> Any:
    return parse_coco(
        json.dumps({"images": images, "annotations": annotations, **more}).encode(), "there.json"
    )


@pytest.mark.parametrize(
    ("value", "id_"),
    [
        (7, 7),
        ("7", 7),
        (7.0, 7),
        ("-7", -7),
        ("007", "007"),
        ("img-7", "img-7"),
        ("", ""),
        ("²", "²"),
        ("9" * 40, "9" * 40),
        (True, None),
        (7.5, None),
        (float("nan"), None),
        (None, None),
        ([7], None),
    ],
)
def test_ids_are_numbers_or_words(value: object, id_: object) -> None:
    assert id_of(value) == id_ and type(id_of(value)) is type(id_)


def test_ids_that_are_words_are_as_good_as_numbers() -> None:
    found = parse(
        [image("left"), image("12", "b.jpg"), image(-3, "c.jpg")],
        [{"id": "x", "image_id": "left", "category_id": "cat"}, {"image_id": 12.0}, {"image_id": "-3"}],
        categories=[{"id": "cat", "name": "Cat", "frequency": "r"}],
    )
    assert [len(one.annotations) for one in found.images] == [1, 1, 1]
    assert [one.annotations[0].name for one in found.images] == [
        "annotation x",
        "annotation at place 1",
        "annotation at place 2",
    ]
    assert found.categories["cat"].name == "Cat" and found.images[0].annotations[0].category == "cat"


def test_an_image_id_that_stands_for_several_is_refused_by_name() -> None:
    images = [image(i, f"{n}.jpg") for n, i in enumerate([1, 2, "1", "two", "two", 30, 30.0])]
    with pytest.raises(InputError, match=r"there\.json: 3 image ids stand for several images \(1, 30, two\)"):
        parse(images, [])


def test_a_category_id_that_stands_for_two_names_is_refused() -> None:
    twice = [{"id": 1, "name": "cat"}, {"id": 1, "name": "cat"}]
    assert parse([image(1)], [], categories=twice).categories[1].name == "cat"
    with pytest.raises(InputError, match="category id 1 stands for 'cat' and 'dog'"):
        parse([image(1)], [], categories=[*twice, {"id": "1", "name": "dog"}])


def test_what_belongs_to_no_image_is_counted_and_the_rest_stands() -> None:
    images = [
        image(1),
        {"id": 2, "coco_url": "http://host/train/b.jpg"},
        image(3, None),
        image(4, width=float("nan")),
        image(5, width=2**20, height=2**20),
        image(None),
        "six",
    ]
    rows = [{"id": 1, "image_id": 1}, {"id": 2, "image_id": 2}, {"id": 3, "image_id": 3}, {"id": 4}, 5, None]
    found = parse(images, rows)
    assert [(one.named.file_name, one.width) for one in found.images] == [("a.jpg", 60), ("b.jpg", None)]
    assert found.images_left_out.counts == {"no_image_id": 2, "no_file_name": 1, "bad_image_size": 2}
    assert found.left_out.counts == {"not_an_object": 2, "unknown_image": 2}
    assert found.left_out.first["unknown_image"] == ("annotation 3", "annotation 4")
    taken = sum(len(one.annotations) for one in found.images)
    assert taken + found.left_out.num == found.num_annotations == 6


def test_only_the_first_few_are_named() -> None:
    found = parse([image(1)], [{"id": i, "image_id": 99} for i in range(1000)])
    assert found.left_out.counts == {"unknown_image": 1000}
    assert found.left_out.first == {"unknown_image": tuple(f"annotation {i}" for i in range(5))}


def test_the_head_is_kept_as_json_can_hold_it() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    found = parse([image(1)], [], info={"mean": float("nan"), "by": "\ud800x"}, deep=deep)
    assert found.head["info"] == {"mean": None, "by": "\ufffdx"}
    json.dumps(found.head, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "it ends in the middle"),
        (b"\xff\xfe\xfa", "it is no JSON"),
        (b"[]", "it is no JSON object"),
        (b'{"images": []}', "it has no list 'annotations'"),
        (b'{"images": {}, "annotations": []}', "it has no list 'images'"),
        (b'{"images": [], "annotations": []}', "has no images with an id and a file_name"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"images": [' + b"9" * 5001 + b"]}", "it is no JSON"),
    ],
)
def test_other_files_are_refused_with_the_reason(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_coco(data, "there.json")


def test_records_of_sa1b_are_read_alike(tmp_path: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"image": image(1), "annotations": [{"id": 8}, None]}))
    (tmp_path / "b.json").write_text(json.dumps({"image": image(1, "b.jpg"), "annotations": []}))
    found = read_sa1b([tmp_path])
    assert [(one.named.file_name, len(one.annotations)) for one in found.images] == [
        ("a.jpg", 1),
        ("b.jpg", 0),
    ]
    assert (found.num_annotations, found.left_out.counts) == (2, {"not_an_object": 1})
    (tmp_path / "c.json").write_text('{"image": {"width": 3}, "annotations": []}')
    with pytest.raises(InputError, match=r"c\.json: not an SA-1B record"):
        read_sa1b([tmp_path])
