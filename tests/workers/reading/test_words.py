"""Words joined to masks, by hand-made records."""

from __future__ import annotations

from typing import Any

import pytest

from maskmill.storage.errors import DamagedObject
from maskmill.workers.reading.words import category_of, with_same_words, with_words
from maskmill.workers.stages.captions import CAPTIONS
from maskmill.workers.stages.labels import LABELS
from maskmill.workers.stages.names import NAMES

RECORD: dict[str, Any] = {
    "image": {"image_id": 1, "width": 4, "height": 4, "file_name": "1.jpg"},
    "annotations": [{"id": 100_000}, {"id": 100_001}],
}


def label(name: str, score: float, mask: int | None) -> dict[str, Any]:
    linked = 0.95 if mask == 100_001 else None
    box = [0, 0, 1, 1]
    return {"label": name, "phrase": name, "score": score, "box": box, "mask": mask, "link_iou": linked}


LABELS_RECORD: dict[str, Any] = {
    "annotations": [{"id": 100_002}],
    "labels": [
        label("cat", 0.9, 100_002),
        label("dog", 0.8, 100_001),
        label("pet", 0.7, 100_001),
        label("sky", 0.6, None),
    ],
}
TEXT = {"text": "a cat", "score": 0.9, "origin": "model"}
CAPTIONS_RECORD: dict[str, Any] = {
    "caption": "a cat",
    "texts": [TEXT],
    "dropped": [],
    "crops": [{"mask": 100_000, "box": [0, 0, 1, 1], "caption": "fur", "texts": [], "dropped": []}],
}
NAMES_RECORD: dict[str, Any] = {
    "names": [{"id": 100_000, "names": [{"name": "tail", "score": 0.4}], "by": "map"}]
}


def test_words_go_to_their_masks() -> None:
    words = {CAPTIONS: CAPTIONS_RECORD, LABELS: LABELS_RECORD, NAMES: NAMES_RECORD}
    joined = with_words(RECORD, words)
    first, second, brought = joined["annotations"]
    assert first == {"id": 100_000, "labels": [], "caption": "fur", "names": [{"name": "tail", "score": 0.4}]}
    assert [label["label"] for label in second["labels"]] == ["dog", "pet"]
    assert [label["label"] for label in brought["labels"]] == ["cat"]
    assert joined["image"]["caption"] == "a cat" and joined["image"]["captions"] == [TEXT]
    assert [box["label"] for box in joined["image"]["boxes"]] == ["sky"]
    assert [category_of(row) for row in joined["annotations"]] == ["tail", "dog", "cat"]
    assert RECORD["annotations"] == [{"id": 100_000}, {"id": 100_001}]  # what was read stays as it is


def test_words_follow_an_outline_into_a_review_whatever_its_id_is_now() -> None:
    def row(id: int, counts: str, **more: Any) -> dict[str, Any]:
        return {"id": id, "segmentation": {"size": [4, 4], "counts": counts}, **more}

    joined = {
        "image": {**RECORD["image"], "caption": "a cat"},
        "annotations": [row(0, "a", names=[{"name": "tail"}]), row(1, "b", names=[{"name": "dog"}])],
    }
    review = {
        "image": RECORD["image"],
        "annotations": [row(0, "b"), row(1, "c"), row(2, "a", label="cat", names=[{"name": "old"}])],
        "review": {"by": "person"},
    }
    found = with_same_words(review, joined)
    assert [category_of(one) for one in found["annotations"]] == ["dog", None, "cat"]
    assert found["annotations"][2]["names"] == [{"name": "tail"}], "as the generation says it now"
    assert found["image"]["caption"] == "a cat" and found["review"] == {"by": "person"}
    assert "names" not in review["annotations"][0]


def test_what_a_column_lacks_is_left_out() -> None:
    assert with_words(RECORD, {}) == RECORD and category_of(RECORD["annotations"][0]) is None
    captions = {**CAPTIONS_RECORD, "caption": None, "texts": [], "crops": []}
    assert "caption" not in with_words(RECORD, {CAPTIONS: captions})["image"]


@pytest.mark.parametrize("column", [CAPTIONS, LABELS, NAMES])
def test_words_of_other_masks_are_damage(column: str) -> None:
    words = {
        CAPTIONS: {**CAPTIONS_RECORD, "crops": [{"mask": 7, "caption": "x"}]},
        LABELS: {**LABELS_RECORD, "annotations": []},
        NAMES: {"names": [{"id": 7, "names": []}]},
    }
    with pytest.raises(DamagedObject, match=f"{column} of 1.jpg: do not fit its masks"):
        with_words(RECORD, {column: words[column]})
