"""Words become classes; what has none is told apart from what has another."""

from __future__ import annotations

from typing import Any

from maskmill.workers.exports.chosen.classes import LOW_LABEL_SCORE, OTHER_CLASS, Classes


def mask(*labels: tuple[str, float], name: str = "", own: str = "", brought: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {"id": 1, "labels": [{"label": text, "score": score} for text, score in labels]}
    row |= {"names": [{"name": name, "score": 0.4}]} if name else {}
    row |= {"label": own} if own else {}
    return row | ({"brought_by": "labels"} if brought else {})


def classes_of(classes: Classes, *rows: dict[str, Any]) -> list[str | None]:
    return [row["class"] for row in classes.put(rows)[0]]


def test_phrases_are_mapped_to_few_classes() -> None:
    classes = Classes(mapped={"a small kitten": "cat", "cat": "cat", "grass": "", "*": "thing"})
    rows = [
        mask(("A small Kitten".lower(), 0.9)),
        mask(("Cat", 0.9)),
        mask(("a lamp", 0.9)),
        mask(("grass", 0.9)),
    ]
    assert classes_of(classes, *rows) == ["cat", "cat", "thing", None]
    assert classes_of(Classes(mapped={"grass": ""}), mask(("grass", 0.9), ("cat", 0.8))) == ["cat"]


def test_masks_of_other_classes_are_left_out_and_counted() -> None:
    kept, left_out = Classes(("cat",)).put([mask(("cat", 0.9)), mask(("dog", 0.9)), mask()])
    assert [row["class"] for row in kept] == ["cat"]
    assert left_out == [OTHER_CLASS, OTHER_CLASS]


def test_a_label_that_scores_too_little_says_nothing_but_its_mask_stays() -> None:
    classes = Classes(min_label_score=0.5)
    kept, left_out = classes.put([mask(("cat", 0.3), name="animal"), mask(("cat", 0.3)), mask(("cat", 0.5))])
    assert [row["class"] for row in kept] == ["animal", None, "cat"]
    assert left_out == []


def test_a_mask_that_only_low_labels_brought_goes_with_them() -> None:
    kept, left_out = Classes(min_label_score=0.5).put(
        [mask(("cat", 0.3), brought=True), mask(("cat", 0.6), brought=True)]
    )
    assert [row["class"] for row in kept] == ["cat"]
    assert left_out == [LOW_LABEL_SCORE]


def test_an_imports_own_word_comes_first() -> None:
    assert classes_of(Classes(mapped={"Katze": "cat"}), mask(("dog", 0.9), own="Katze")) == ["cat"]


def test_nothing_asked_for_decides_nothing() -> None:
    assert not Classes().decides
