"""Categories of a COCO file in the order they turn up, and LVIS's frequencies."""

from __future__ import annotations

from maskmill.workers.exports.categories import Categories


def test_names_get_ids_as_they_turn_up_after_object() -> None:
    categories = Categories()
    assert categories.count(["dog", None, "dog"]) == [2, 1, 2]
    assert categories.count(["cat"]) == [3]
    assert [(one["id"], one["name"]) for one in categories.coco()] == [(1, "object"), (2, "dog"), (3, "cat")]


def test_lvis_counts_images_and_instances_and_says_how_frequent() -> None:
    categories = Categories()
    for number in range(101):
        categories.count(["dog", "dog", *(["cat"] if number < 11 else []), *(["owl"] if number < 10 else [])])
    told = {
        one["name"]: (one["image_count"], one["instance_count"], one["frequency"])
        for one in categories.lvis()
    }
    assert told == {
        "object": (0, 0, "r"),
        "dog": (101, 202, "f"),
        "cat": (11, 11, "c"),
        "owl": (10, 10, "r"),
    }
