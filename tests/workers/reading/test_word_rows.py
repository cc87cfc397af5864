"""Rows of the columns with words, from records as their stages write them."""

from __future__ import annotations

from maskmill.workers.reading.word_rows import ANNOTATION_ROWS, REVIEW_ROWS, WORD_ROWS, rows_for

IMAGE = {"image_id": 3, "width": 8, "height": 6, "file_name": "000000003.jpg"}


def test_captions_have_a_row_per_text_of_picture_and_crops() -> None:
    text = {"text": "a cat", "score": 0.9, "origin": "model"}
    other = {"text": "cats", "score": 0.2, "origin": "alt"}
    crop = {
        "mask": 300001,
        "box": [0, 0, 2, 2],
        "caption": "an ear",
        "dropped": [],
        "texts": [text | {"text": "an ear"}],
    }
    record = {"image": IMAGE, "caption": "a cat", "texts": [text], "dropped": [other], "crops": [crop]}
    rows = list(WORD_ROWS["captions"].rows(record))
    assert [(row["text"], row["annotation_id"], row["kept"], row["is_caption"]) for row in rows] == [
        ("a cat", None, 1, 1),
        ("cats", None, 0, 0),
        ("an ear", 300001, 1, 1),
    ]
    assert all(set(row) == set(WORD_ROWS["captions"].fields) and row["image_id"] == 3 for row in rows)


def test_labels_have_a_row_each_with_or_without_a_mask() -> None:
    label = {"label": "cat", "phrase": "a cat", "score": 0.5, "box": [1, 2, 3, 4], "mask": 7, "link_iou": 0.8}
    lost = label | {"mask": None, "link_iou": None}
    rows = list(WORD_ROWS["labels"].rows({"image": IMAGE, "labels": [label, lost]}))
    assert [row["annotation_id"] for row in rows] == [7, None]
    assert [rows[0][f"bbox_{side}"] for side in "xywh"] == [1.0, 2.0, 3.0, 4.0]
    assert set(rows[0]) == set(WORD_ROWS["labels"].fields)


def test_names_have_a_row_per_name_the_best_first() -> None:
    named = [{"name": "cat", "score": 0.9}, {"name": "dog", "score": 0.1}]
    record = {"image": IMAGE, "names": [{"id": 5, "names": named, "by": "clip"}]}
    rows = list(WORD_ROWS["names"].rows(record))
    assert [(row["annotation_id"], row["place"], row["name"]) for row in rows] == [
        (5, 0, "cat"),
        (5, 1, "dog"),
    ]
    assert set(rows[0]) == set(WORD_ROWS["names"].fields)


def test_other_columns_have_a_row_per_mask_or_none() -> None:
    assert rows_for("given") is ANNOTATION_ROWS and rows_for("review") is REVIEW_ROWS
    (row,) = ANNOTATION_ROWS.rows({"image": IMAGE, "annotations": [{"id": 9, "area": 4, "label": "cat"}]})
    assert (row["annotation_id"], row["area_px"], row["bbox_x"], row["label"]) == (9, 4, None, "cat")
    assert set(row) == set(ANNOTATION_ROWS.fields)
    assert list(ANNOTATION_ROWS.rows({"image": IMAGE})) == []
